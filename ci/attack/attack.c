// What C clients lean on beyond what the tests of the interface look at: coroutines whose stacks are roots by a callback and by added
// ranges, chains of cells that are half used, graphs by a random walk against a model in malloc's memory, long links and toggle
// references, weak reads under the lock while others collect. Ends with 1 if an object is not what it was: attack SIZE.
#define GC_THREADS
#define _GNU_SOURCE
#include <gc.h>
#include <gc/gc_mark.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

static void fail(const char *what) {
  printf("FAILED: %s\n", what);
  exit(1);
}
#define CHECK(e) ((e) ? (void)0 : fail(#e))

static unsigned long state = 88172645463325252UL;
static unsigned long draw(unsigned long below) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state % below;
}

// ---- coroutines --------------------------------------------------------------------------------------------------

#define COROUTINES 200
#define STACK 65536
static struct coroutine {
  ucontext_t here;
  char *stack, *sp;
  int steps, ended;
} coroutines[COROUTINES];
static ucontext_t back;
static int running = -1;
static GC_push_other_roots_proc others;

static void push_stacks(void) {
  for (int i = 0; i < COROUTINES; i += 2)
    if (coroutines[i].stack && i != running) GC_push_all_eager(coroutines[i].sp, coroutines[i].stack + STACK);
  others();
}

static void pause_here(struct coroutine *c) {
  char mark;
  // Below this frame nothing is in use, but for what swapcontext saves in the structure, which is static data.
  c->sp = &mark - 512 < c->stack ? c->stack : (char *)((unsigned long)(&mark - 512) & ~15UL);
  swapcontext(&c->here, &back);
}

static void live(int index) {
  struct coroutine *c = &coroutines[index];
  void **list = NULL;
  for (int n = 0; n < 40; n++) {
    void **cell = GC_MALLOC(48);
    cell[0] = list;
    cell[1] = (void *)(index * 1000L + n);
    list = cell;
    if (n % 4 == 3) pause_here(c);
  }
  int n = 40;
  for (void **cell = list; cell; cell = cell[0]) CHECK((long)cell[1] == index * 1000L + --n);
  CHECK(n == 0);
  c->ended = 1;
  swapcontext(&c->here, &back);
}

static void coroutine_stacks(void) {
  others = GC_get_push_other_roots();
  GC_set_push_other_roots(push_stacks);
  struct GC_stack_base base;
  CHECK(GC_get_my_stackbottom(&base) != NULL);
  for (int i = 0; i < COROUTINES; i++) {
    struct coroutine *c = &coroutines[i];
    c->stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(c->stack != MAP_FAILED);
    c->sp = c->stack + STACK;
    if (i & 1) GC_add_roots(c->stack, c->stack + STACK);
    getcontext(&c->here);
    c->here.uc_stack.ss_sp = c->stack;
    c->here.uc_stack.ss_size = STACK;
    makecontext(&c->here, (void (*)(void))live, 1, i);
  }
  int left = COROUTINES;
  while (left) {
    int i = draw(COROUTINES);
    struct coroutine *c = &coroutines[i];
    if (c->ended) continue;
    running = i;
    struct GC_stack_base on = {.mem_base = c->stack + STACK};
    GC_set_stackbottom(NULL, &on);
    swapcontext(&back, &c->here);
    GC_set_stackbottom(NULL, &base);
    running = -1;
    if (c->ended) left--;
    if (draw(40) == 0) GC_gcollect();
  }
  for (int i = 1; i < COROUTINES; i += 2) GC_remove_roots(coroutines[i].stack, coroutines[i].stack + STACK);
  GC_set_push_other_roots(others);
  for (int i = 0; i < COROUTINES; i++) munmap(coroutines[i].stack, STACK);
  printf("coroutines: %d\n", COROUTINES);
}

// ---- a random graph against a model ------------------------------------------------------------------------------

#define OBJECTS 400
struct object {
  unsigned long number;
  unsigned long bytes;
  struct object *to[4];
  unsigned char tail[];
};
static struct object **table; // uncollectable: the roots
static struct {
  unsigned long number, bytes;
  int to[4];
} model[OBJECTS];

static struct object *make(int at) {
  static unsigned long next = 1;
  unsigned long bytes = sizeof(struct object) + (draw(20) ? draw(200) : draw(40000));
  struct object *o;
  switch (draw(5)) {
  case 0: o = GC_MALLOC_IGNORE_OFF_PAGE(bytes); break;
  case 1: o = GC_MALLOC_UNCOLLECTABLE(bytes); break;
  case 2: // Of the system's library this is an address within an object.
    o = GC_memalign(64, bytes);
    CHECK(((unsigned long)o & 63) == 0);
    memset(o, 0, bytes);
    break;
  case 3: o = GC_REALLOC(GC_MALLOC(sizeof(struct object)), bytes); break;
  default: o = GC_MALLOC(bytes);
  }
  CHECK(o && GC_base(o) && (char *)GC_base(o) + GC_size(GC_base(o)) >= (char *)o + bytes);
  for (unsigned long i = sizeof *o; i < bytes; i++) CHECK(((unsigned char *)o)[i] == 0);
  o->number = model[at].number = next++;
  o->bytes = model[at].bytes = bytes;
  memset(o->tail, (int)o->number, bytes - sizeof *o);
  for (int k = 0; k < 4; k++) model[at].to[k] = -1;
  return o;
}

static void look(int at) {
  struct object *o = table[at];
  if (!o) return;
  CHECK(o->number == model[at].number && o->bytes == model[at].bytes);
  for (unsigned long i = 0; i < o->bytes - sizeof *o; i++) CHECK(o->tail[i] == (unsigned char)o->number);
  for (int k = 0; k < 4; k++)
    if (o->to[k]) CHECK(o->to[k]->bytes >= sizeof *o && o->to[k]->tail[0] == (unsigned char)o->to[k]->number);
}

static void random_graph(long steps) {
  table = GC_MALLOC_UNCOLLECTABLE(OBJECTS * sizeof *table);
  for (long i = 0; i < steps; i++) {
    int at = draw(OBJECTS), other = draw(OBJECTS);
    switch (draw(8)) {
    case 0: table[at] = NULL; break;
    case 1:
    case 2: table[at] = make(at); break;
    case 3: if (table[at]) table[at]->to[draw(4)] = table[other] && table[other]->bytes > sizeof(struct object) ? table[other] : NULL; break;
    case 4: if (table[at] && draw(50) == 0) GC_gcollect(); break;
    default: look(at);
    }
  }
  for (int at = 0; at < OBJECTS; at++) look(at);
  printf("random graph: %ld steps\n", steps);
}

// ---- chains, links, toggles --------------------------------------------------------------------------------------

static void **chain_heads;

static void chains(int n) {
  chain_heads = GC_MALLOC_UNCOLLECTABLE(64 * sizeof(void *));
  long used = 0;
  for (int i = 0; i < n; i++) {
    int at = draw(64);
    if (!chain_heads[at]) chain_heads[at] = GC_malloc_many(16 * (1 + draw(8)));
    void **cell = chain_heads[at];
    CHECK(cell && GC_base(cell) == cell);
    chain_heads[at] = GC_NEXT(cell);
    GC_NEXT(cell) = NULL;
    for (unsigned long k = 0; k < GC_size(cell) / 8; k++) CHECK(cell[k] == NULL);
    // Used up to the last byte of the smallest cell: what follows must not be a part of the chain.
    cell[0] = (void *)0x5555;
    cell[1] = (void *)0xaaaa;
    used++;
    if (draw(2000) == 0) GC_gcollect();
  }
  printf("cells of chains: %ld\n", used);
}

static pthread_mutex_t racing = PTHREAD_MUTEX_INITIALIZER;
static int stop;
static void *read_weak(void *link) { return *(void **)link ? GC_REVEAL_POINTER(*(void **)link) : NULL; }
static void *collect_all_the_time(void *unused) {
  for (;;) {
    pthread_mutex_lock(&racing);
    int end = stop;
    pthread_mutex_unlock(&racing);
    if (end) return unused;
    GC_gcollect();
  }
}

static void weak_reads(int n) {
  pthread_t collector;
  CHECK(GC_pthread_create(&collector, NULL, collect_all_the_time, NULL) == 0);
  GC_word *links = GC_MALLOC_ATOMIC_UNCOLLECTABLE(256 * sizeof *links);
  memset(links, 0, 256 * sizeof *links);
  void **held = GC_MALLOC_UNCOLLECTABLE(256 * sizeof *held);
  long seen = 0;
  for (int i = 0; i < n; i++) {
    int at = draw(256);
    unsigned long *o = GC_call_with_alloc_lock(read_weak, &links[at]);
    if (o) {
      // It was read under the lock: it cannot go any more.
      CHECK(o[1] == at * 77UL);
      seen++;
    } else {
      CHECK(held[at] == NULL);
    }
    if (draw(3) == 0) {
      if (links[at]) GC_unregister_disappearing_link((void **)&links[at]);
      o = GC_MALLOC(64);
      o[1] = at * 77UL;
      links[at] = GC_HIDE_POINTER(o);
      CHECK(GC_GENERAL_REGISTER_DISAPPEARING_LINK((void **)&links[at], o) == GC_SUCCESS);
      held[at] = draw(2) ? o : NULL;
    } else if (draw(3) == 0) {
      held[at] = NULL;
    }
  }
  CHECK(seen > 0);
  pthread_mutex_lock(&racing);
  stop = 1;
  pthread_mutex_unlock(&racing);
  CHECK(GC_pthread_join(collector, NULL) == 0);
  printf("weak reads: %d\n", n);
}

static int strong;
static GC_ToggleRefStatus toggle(void *o) { return ((long *)o)[1] & 1 ? GC_TOGGLE_REF_STRONG : strong ? GC_TOGGLE_REF_DROP : GC_TOGGLE_REF_WEAK; }
static int revived, ended;
static void finish(void *o, void *data) {
  CHECK(((long *)o)[1] == (long)data);
  ended++;
  if ((long)data % 3 == 0) {
    // Comes back, and is finalized once more.
    chain_heads[(long)data % 64] = o;
    if (revived++ < 50) GC_REGISTER_FINALIZER_NO_ORDER(o, finish, data, NULL, NULL);
  }
}
static void __attribute__((noinline)) make_finalizable(int n) {
  for (long i = 0; i < n; i++) {
    long *o = GC_MALLOC(32);
    o[1] = i;
    GC_REGISTER_FINALIZER_NO_ORDER(o, finish, (void *)i, NULL, NULL);
  }
}
static void __attribute__((noinline)) make_toggled(int n, GC_word *hidden) {
  for (long i = 0; i < n; i++) {
    long *o = GC_MALLOC(48);
    o[1] = i;
    hidden[i] = GC_HIDE_POINTER(o);
    CHECK(GC_toggleref_add(o, 1) == GC_SUCCESS);
  }
}
static unsigned long __attribute__((noinline)) clobber(int depth) {
  volatile unsigned long words[256];
  for (int i = 0; i < 256; i++) words[i] = 0;
  return depth ? clobber(depth - 1) + words[5] : words[7];
}

static void ends(int n) {
  memset(chain_heads, 0, 64 * sizeof(void *));
  make_finalizable(n);
  for (int i = 0; i < 5; i++) {
    clobber(50);
    GC_gcollect();
    GC_invoke_finalizers();
    memset(chain_heads, 0, 64 * sizeof(void *));
  }
  CHECK(ended >= n - 8 && revived > 0);
  GC_word *hidden = GC_MALLOC_ATOMIC_UNCOLLECTABLE(n * sizeof *hidden);
  GC_set_toggleref_func(toggle);
  make_toggled(n, hidden);
  clobber(50);
  for (int i = 0; i < 3; i++) GC_gcollect();
  for (long i = 1; i < n; i += 2) CHECK(((long *)GC_REVEAL_POINTER(hidden[i]))[1] == i);
  strong = 1;
  GC_gcollect();
  printf("finalized and toggled: %d\n", n);
}

int main(int count, char **words) {
  long size = count > 1 ? atol(words[1]) : 1000;
  GC_set_all_interior_pointers(1);
  GC_INIT();
  GC_allow_register_threads();
  coroutine_stacks();
  random_graph(size * 100);
  chains(size * 100);
  weak_reads(size * 20);
  ends(1000);
  return 0;
}

/* Threads: registered by creation, by hand, blocked, ending while the world stops. */
#include "check.h"
#undef pthread_create
#undef pthread_join
#undef pthread_detach

typedef struct node {
  struct node *next;
  unsigned long number, check;
} node;

static node *build(unsigned count, unsigned long seed) {
  node *head = NULL;
  for (unsigned i = 0; i < count; i++) {
    node *n = GC_MALLOC(sizeof *n + i % 7 * 16);
    n->next = head, n->number = seed + i, n->check = ~(seed + i);
    head = n;
    if (i % 16 == 0) memset(GC_MALLOC_ATOMIC(200), 0x77, 200);
  }
  return head;
}

static void verify(node *head, unsigned count, unsigned long seed) {
  for (unsigned i = count; i-- > 0; head = head->next)
    CHECK(head && head->number == seed + i && head->check == ~(seed + i));
  CHECK(!head);
}

static void *worker(void *arg) {
  unsigned long seed = (unsigned long)(uintptr_t)arg;
  CHECK(GC_thread_is_registered());
  for (int round = 0; round < 20; round++) {
    node *list = build(400, seed);
    if (round % 5 == (int)seed % 5) GC_gcollect();
    verify(list, 400, seed);
  }
  return build(50, seed);
}

static void *brief(void *arg) {
  *(void **)GC_MALLOC(64) = arg;
  return NULL;
}

/* A thread that the library did not make. */
static void *stranger(void *arg) {
  struct GC_stack_base base;
  CHECK(!GC_thread_is_registered());
  CHECK(GC_get_stack_base(&base) == GC_SUCCESS && GC_register_my_thread(&base) == GC_SUCCESS);
  CHECK(GC_thread_is_registered() && GC_register_my_thread(&base) == GC_DUPLICATE);
  node *list = build(300, 7);
  GC_gcollect();
  verify(list, 300, 7);
  CHECK(GC_unregister_my_thread() == GC_SUCCESS && !GC_thread_is_registered());
  return arg;
}

static int blocked[2], done[2];
static void *inside(void *arg) {
  node *list = build(100, 3);
  for (int i = 0; i < 3; i++) GC_gcollect();
  verify(list, 100, 3);
  return arg;
}
static void *outside(void *arg) {
  char c;
  CHECK(write(blocked[1], "b", 1) == 1);
  CHECK(read(done[0], &c, 1) == 1);
  CHECK(GC_call_with_gc_active(inside, arg) == arg);
  return arg;
}
static void *blocks(void *arg) {
  node *list = build(200, 11);
  CHECK(GC_do_blocking(outside, arg) == arg);
  verify(list, 200, 11);
  return NULL;
}

int main(void) {
  GC_INIT();
  GC_allow_register_threads();
  pthread_t t[8];
  for (int round = 0; round < 3; round++) {
    for (uintptr_t i = 0; i < 6; i++) CHECK(GC_pthread_create(&t[i], NULL, worker, (void *)(i * 1000)) == 0);
    for (uintptr_t i = 0; i < 6; i++) {
      void *result;
      CHECK(GC_pthread_join(t[i], &result) == 0);
      verify(result, 50, i * 1000);
    }
  }
  /* Threads that start and end while another collects. */
  CHECK(GC_pthread_create(&t[7], NULL, worker, (void *)5) == 0);
  for (int i = 0; i < 300; i++) {
    pthread_t a, b;
    CHECK(GC_pthread_create(&a, NULL, brief, t) == 0 && GC_pthread_create(&b, NULL, brief, t) == 0);
    if (i % 10 == 0) GC_gcollect();
    CHECK(GC_pthread_join(a, NULL) == 0 && GC_pthread_detach(b) == 0);
  }
  CHECK(GC_pthread_join(t[7], NULL) == 0);
  for (int i = 0; i < 20; i++) {
    pthread_t a;
    CHECK(pthread_create(&a, NULL, stranger, t) == 0);
    GC_gcollect();
    void *result;
    CHECK(pthread_join(a, &result) == 0 && result == t);
  }
  CHECK(pipe(blocked) == 0 && pipe(done) == 0);
  CHECK(GC_pthread_create(&t[0], NULL, blocks, blocked) == 0);
  char c;
  CHECK(read(blocked[0], &c, 1) == 1);
  /* Collects while the other one sits in a system call. */
  for (int i = 0; i < 3; i++) verify(build(1000, 1), 1000, 1), GC_gcollect();
  CHECK(write(done[1], "d", 1) == 1 && GC_pthread_join(t[0], NULL) == 0);
  return 0;
}

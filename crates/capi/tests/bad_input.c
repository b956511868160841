/* What C hands over wrongly has a defined answer; and what it hands over rightly works in every plan. Says "ok" if all does. */
#include <heapwright.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;
#define EXPECT(condition) \
  ((condition) ? (void)0 : (void)(failures++, printf("line %d: %s (%s)\n", __LINE__, #condition, hw_last_error())))
#define IS(call, status) EXPECT((call) == (status))
#define OK(call) IS(call, HW_OK)

/* An object: header, two references. */
struct pair { size_t header; hw_object first, second; };
#define PAIR(o) ((struct pair *)(o))

static size_t size(void *user, hw_object o) { return (void)user, (void)o, sizeof(struct pair); }
static void scan(void *user, hw_object o, struct hw_visitor *v) { (void)user, hw_visit_slots(v, &PAIR(o)->first, 2); }

static struct hw_vm table(void) {
  struct hw_vm vm;
  hw_vm_init(&vm);
  vm.size = size;
  vm.scan = scan;
  return vm;
}

static struct hw_heap *heap_of(const char *plan, const char *max, unsigned flags) {
  struct hw_vm vm = table();
  struct hw_options *options = NULL;
  struct hw_heap *heap = NULL;
  vm.flags = flags;
  OK(hw_options_create(&options));
  OK(hw_options_set(options, "plan", plan));
  OK(hw_options_set(options, "max", max));
  OK(hw_options_set(options, "verify", "1"));
  OK(hw_heap_create(&vm, options, &heap));
  OK(hw_options_destroy(&options));
  return heap;
}

static struct hw_mutator *attach(struct hw_heap *heap) {
  struct hw_mutator *m = NULL;
  OK(hw_attach(heap, NULL, &m));
  return m;
}

static hw_object pair(struct hw_mutator *m, hw_object first) {
  hw_object o;
  OK(hw_push_root(m, &first));
  o = hw_alloc(m, sizeof(struct pair));
  OK(hw_pop_roots(m, 1));
  if (!o) return NULL;
  hw_set_header(o, 0xabcdef);
  hw_write(m, o, &PAIR(o)->first, first);
  return o;
}

static void options_and_versions(void) {
  struct hw_vm vm = table();
  struct hw_heap *heap = (struct hw_heap *)&vm;
  struct hw_options *options = NULL;
  OK(hw_options_create(&options));
  IS(hw_options_create(NULL), HW_ERROR_ARGUMENT);
  IS(hw_options_set(options, "plam", "immix"), HW_ERROR_OPTION);
  EXPECT(strstr(hw_last_error(), "workers"));
  IS(hw_options_set(options, "plan", "fastest"), HW_ERROR_OPTION);
  IS(hw_options_set(options, "plan", NULL), HW_ERROR_ARGUMENT);
  IS(hw_options_set(options, "plan", "\xff"), HW_ERROR_ARGUMENT);
  IS(hw_options_set(NULL, "plan", "immix"), HW_ERROR_ARGUMENT);
  OK(hw_options_set(options, "soft", "2m"));
  OK(hw_options_set(options, "max", "1m"));
  IS(hw_heap_create(&vm, options, &heap), HW_ERROR_OPTION);
  EXPECT(!heap);
  OK(hw_options_destroy(&options));
  OK(hw_options_destroy(&options));
  vm.size = NULL;
  IS(hw_heap_create(&vm, NULL, &heap), HW_ERROR_CALLBACK);
  EXPECT(strstr(hw_last_error(), "hw_vm.size"));
  vm = table(), vm.scan = NULL;
  IS(hw_heap_create(&vm, NULL, &heap), HW_ERROR_CALLBACK);
  EXPECT(hw_last_status() == HW_ERROR_CALLBACK);
  vm = table();
  IS(hw_heap_create_versioned(HW_ABI_VERSION + 1, &vm, NULL, &heap), HW_ERROR_VERSION);
  IS(hw_heap_create_versioned(HW_ABI_VERSION + 65536, &vm, NULL, &heap), HW_ERROR_VERSION);
  EXPECT(strstr(hw_last_error(), "heapwright.h"));
  EXPECT(hw_abi_version() == HW_ABI_VERSION);
  vm.struct_size = sizeof vm + 8;
  IS(hw_heap_create(&vm, NULL, &heap), HW_ERROR_VERSION);
  vm.struct_size = 8;
  IS(hw_heap_create(&vm, NULL, &heap), HW_ERROR_ARGUMENT);
  vm = table(), vm.flags = 2;
  IS(hw_heap_create(&vm, NULL, &heap), HW_ERROR_ARGUMENT);
  IS(hw_heap_create(NULL, NULL, &heap), HW_ERROR_ARGUMENT);
  IS(hw_heap_create(&vm, NULL, NULL), HW_ERROR_ARGUMENT);
  /* An older header: its table ends after scan. */
  vm = table(), vm.struct_size = offsetof(struct hw_vm, thread_roots);
  vm.thread_roots = (void (*)(void *, void *, struct hw_visitor *))1; /* must not be read */
  OK(hw_heap_create(&vm, NULL, &heap));
  OK(hw_heap_destroy(&heap));
  OK(hw_heap_destroy(&heap));
  EXPECT(strcmp(hw_status_name(HW_ERROR_VERSION), "HW_ERROR_VERSION") == 0 && hw_status_name(-1));
}

static void touch(void *arg, hw_object o) {
  (void)o;
  IS(hw_collect((struct hw_mutator *)arg, HW_COLLECT_FULL), HW_ERROR_BUSY);
  IS(hw_detach((struct hw_mutator **)&arg), HW_ERROR_BUSY);
}

static void leave(void *arg) { EXPECT(!hw_alloc_slow((struct hw_mutator *)arg, 24) && hw_last_status() == HW_ERROR_BUSY); }

static void mutators(void) {
  struct hw_heap *heap = heap_of("immix", "4m", 0), *mapped = heap_of("marksweep", "4m", HW_OBJECT_MAP), *gone;
  struct hw_mutator *m = attach(heap), *n = attach(mapped), *copy;
  hw_object o = NULL, list = NULL, found = NULL;
  struct hw_weak_map *map = NULL;
  struct hw_weak *weak = NULL;
  size_t count = 0;
  OK(hw_push_root(m, &o)), OK(hw_push_root(m, &list));
  EXPECT((o = hw_alloc(m, 0)) != NULL);
  EXPECT(!hw_alloc(m, SIZE_MAX) && hw_last_status() == HW_ERROR_MEMORY);
  EXPECT(!hw_alloc(m, SIZE_MAX - 3) && !hw_alloc(m, (size_t)1 << 40));
  EXPECT(!hw_alloc_unmoving(m, SIZE_MAX) && !hw_alloc_immortal(m, SIZE_MAX));
  o = pair(m, NULL);
  IS(hw_unpin(m, o), HW_ERROR_NOT_PINNED);
  OK(hw_pin(m, o)), OK(hw_unpin(m, o));
  IS(hw_unpin(m, o), HW_ERROR_NOT_PINNED);
  IS(hw_pin(m, NULL), HW_ERROR_ARGUMENT);
  IS(hw_pin(m, (char *)o + 1), HW_ERROR_ARGUMENT);
  IS(hw_pop_roots(m, 3), HW_ERROR_ARGUMENT);
  IS(hw_push_root(m, NULL), HW_ERROR_ARGUMENT);
  IS(hw_collect(m, 9), HW_ERROR_ARGUMENT);
  IS(hw_collect(NULL, 0), HW_ERROR_ARGUMENT);
  IS(hw_add_root(heap, NULL), HW_ERROR_ARGUMENT);
  OK(hw_add_root(heap, &found));
  IS(hw_add_root(heap, &found), HW_ERROR_ARGUMENT);
  OK(hw_remove_root(heap, &found));
  IS(hw_remove_root(heap, &found), HW_ERROR_ARGUMENT);
  IS(hw_for_each_object(m, touch, m), HW_ERROR_UNSUPPORTED);
  IS(hw_object_at(m, 8, &found), HW_ERROR_UNSUPPORTED);
  IS(hw_outside(m, NULL, NULL), HW_ERROR_CALLBACK);
  OK(hw_outside(m, leave, m));
  IS(hw_for_each_object(n, NULL, n), HW_ERROR_CALLBACK);
  found = pair(n, NULL);
  OK(hw_for_each_object(n, touch, n));
  OK(hw_object_at(n, (size_t)found + 9, &list));
  EXPECT(list == found), list = NULL, found = NULL;
  /* Limits below what lives, and then the heap goes on. */
  for (count = 0; count < 40000; count++) list = pair(m, list);
  IS(hw_set_limits(m, 0, 64 << 10), HW_ERROR_LIMIT);
  IS(hw_set_limits(m, 2 << 20, 1 << 20), HW_ERROR_LIMIT);
  EXPECT(pair(m, list));
  /* Full: null, and what lived still does. */
  while ((found = pair(m, list)) != NULL) list = found;
  EXPECT(hw_last_status() == HW_ERROR_MEMORY);
  for (count = 0, found = list; found; found = PAIR(found)->first) count += hw_header(found) == 0xabcdef;
  EXPECT(count > 40000);
  list = NULL;
  OK(hw_collect(m, HW_COLLECT_RELEASE));
  /* Of another heap, or of a dead one. */
  o = pair(m, NULL);
  OK(hw_weak_map_create(m, &map)), OK(hw_weak_create(m, o, HW_WEAK, &weak));
  IS(hw_weak_create(m, o, 7, &weak), HW_ERROR_ARGUMENT);
  OK(hw_weak_create(m, o, HW_WEAK, &weak));
  EXPECT(hw_weak_get(m, weak) == o && !hw_weak_get(n, weak) && hw_last_status() == HW_ERROR_ARGUMENT);
  IS(hw_weak_map_insert(n, map, o, o), HW_ERROR_ARGUMENT);
  OK(hw_weak_map_insert(m, map, o, o));
  EXPECT(hw_weak_map_get(m, map, o) == o && hw_weak_map_remove(m, map, o) == o && !hw_weak_map_get(m, map, o));
  IS(hw_add_ephemeron(m, o, 0, 8), HW_ERROR_ARGUMENT);
  IS(hw_add_finalizer(m, o, 2, 0), HW_ERROR_ARGUMENT);
  EXPECT(hw_run_finalizers(m, 1, NULL, NULL) == 0 && hw_last_status() == HW_ERROR_CALLBACK);
  IS(hw_heap_destroy(&heap), HW_ERROR_BUSY);
  EXPECT(heap);
  copy = m;
  OK(hw_detach(&m));
  EXPECT(!m);
  IS(hw_detach(&m), HW_ERROR_DETACHED);
  EXPECT(!hw_alloc(copy, 24) && hw_last_status() == HW_ERROR_DETACHED);
  IS(hw_before_write(copy, o, NULL), HW_ERROR_DETACHED);
  hw_poll(copy);
  m = copy;
  IS(hw_detach(&m), HW_ERROR_DETACHED);
  gone = heap;
  OK(hw_heap_destroy(&heap));
  EXPECT(gone && !heap && hw_weak_is_cleared(weak) && hw_weak_map_count(map) == 0 && hw_weak_is_cleared(NULL));
  OK(hw_weak_destroy(&weak)), OK(hw_weak_destroy(&weak));
  OK(hw_weak_map_destroy(&map)), OK(hw_weak_map_destroy(&map));
  OK(hw_detach(&n)), OK(hw_heap_destroy(&mapped));
}

static void finalize(void *kept, struct hw_mutator *m, hw_object o, size_t token) {
  *(hw_object *)kept = o; /* lives on */
  EXPECT(token == 42);
  EXPECT(pair(m, NULL));
  OK(hw_add_finalizer(m, *(hw_object *)kept, HW_TOGETHER, 43));
}

/* A list, garbage, hashes, weak handles and finalizers. */
static void plan(const char *name, unsigned flags) {
  int collects = strcmp(name, "nogc") != 0;
  int small = strcmp(name, "pageprotect") == 0;
  struct hw_heap *heap = heap_of(name, collects ? (small ? "64m" : "4m") : "0", flags);
  struct hw_mutator *m = attach(heap);
  hw_object list = NULL, kept = NULL, o;
  struct hw_weak *weak = NULL;
  size_t hash = 0, again = 1, i, length = small ? 100 : 5000, count = 0, token = 0;
  OK(hw_push_root(m, &list)), OK(hw_push_root(m, &kept));
  for (i = 0; i < length; i++) list = pair(m, list);
  OK(hw_identity_hash(m, list, &hash));
  o = pair(m, NULL);
  OK(hw_weak_create(m, o, HW_WEAK, &weak));
  OK(hw_add_finalizer(m, o, HW_TOGETHER, 42));
  for (i = 0; i < 20 * length; i++) EXPECT(pair(m, list));
  /* What is old refers to what is new: only the barrier tells a minor collection. */
  for (i = 0; i < 20; i++) {
    o = pair(m, list);
    hw_set_header(o, 77);
    hw_write(m, list, &PAIR(list)->second, o);
    OK(hw_collect(m, HW_COLLECT_YOUNG));
    for (count = 0; count < 200; count++) EXPECT(pair(m, NULL));
    EXPECT(hw_header(PAIR(list)->second) == 77 && PAIR(PAIR(list)->second)->first == list);
  }
  count = 0;
  OK(hw_collect(m, HW_COLLECT_BACKGROUND)), OK(hw_collect(m, HW_COLLECT_YOUNG));
  OK(hw_collect(m, HW_COLLECT_FULL)), OK(hw_collect(m, HW_COLLECT_FULL));
  OK(hw_identity_hash(m, list, &again));
  EXPECT(hash == again);
  for (o = list; o; o = PAIR(o)->first) count += hw_header(o) == 0xabcdef;
  EXPECT(count == length);
  EXPECT(hw_weak_is_cleared(weak) == collects);
  EXPECT(hw_run_finalizers(m, 9, finalize, &kept) == (size_t)collects);
  EXPECT(!collects || hw_header(kept) == 0xabcdef);
  kept = NULL;
  OK(hw_collect(m, HW_COLLECT_FULL)), OK(hw_collect(m, HW_COLLECT_FULL));
  o = hw_next_finalizable(m, &token);
  EXPECT(collects ? o && token == 43 : !o);
  OK(hw_weak_destroy(&weak)), OK(hw_detach(&m)), OK(hw_heap_destroy(&heap));
}

static void *work(void *heap) {
  struct hw_mutator *m = attach((struct hw_heap *)heap);
  hw_object list = NULL;
  size_t i, count = 0;
  OK(hw_push_root(m, &list));
  for (i = 0; i < 20000; i++) list = i % 2000 ? pair(m, list) : NULL, hw_poll(m);
  for (; list; list = PAIR(list)->first) count++;
  EXPECT(count == 1999);
  OK(hw_detach(&m));
  return NULL;
}

static void threads(const char *name) {
  struct hw_heap *heap = heap_of(name, "4m", 0);
  pthread_t ids[3];
  int i;
  for (i = 0; i < 3; i++) EXPECT(pthread_create(&ids[i], NULL, work, heap) == 0);
  for (i = 0; i < 3; i++) EXPECT(pthread_join(ids[i], NULL) == 0);
  OK(hw_heap_destroy(&heap));
}

int main(void) {
  static const char *const plans[] = {"nogc", "marksweep", "semispace", "markcompact", "immix", "gencopy", "genimmix", "stickyimmix",
    "stickymarksweep", "concurrentimmix", "pageprotect"};
  size_t i;
  options_and_versions();
  mutators();
  for (i = 0; i < sizeof plans / sizeof *plans; i++) plan(plans[i], 0), plan(plans[i], HW_OBJECT_MAP);
  threads("genimmix"), threads("concurrentimmix");
  if (!failures) printf("ok\n");
  return failures != 0;
}

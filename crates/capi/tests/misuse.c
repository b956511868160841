/* Wrong uses of the interface, each with its answer; and the right ones that the example does not have. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "expect.h"

typedef struct { size_t header; hw_object next; } Node;
typedef struct { hw_object slots[64]; } Thread;

static size_t size_of(void *user, hw_object o) { (void)user; return hw_size(o, (((Node *)o)->header >> 8) & 0xffffff); }
static void scan(void *user, hw_object o, hw_slot_visitor *v) { (void)user; if (!(((Node *)o)->header >> 40)) hw_visit(v, &((Node *)o)->next, 1); }
static void roots_of(void *user, void *thread, hw_root_visitor *v) {
  (void)user;
  hw_root(v, ((Thread *)thread)->slots, 32);
  for (int i = 32; i < 64; i++) hw_root_ambiguous(v, (size_t)((Thread *)thread)->slots[i]);
}
static uint32_t type_of(void *user, hw_object o) { (void)user; return (uint32_t)(((Node *)o)->header >> 40); }
static int bad;
static void violation(void *user, const char *what, hw_object o, size_t w) { (void)user; (void)o; (void)w; printf("%s\n", what); bad++; }

static hw_vm table(uint32_t flags) {
  hw_vm vm;
  memset(&vm, 0, sizeof vm);
  vm.struct_size = sizeof vm;
  vm.abi_version = HW_ABI_VERSION;
  vm.flags = flags;
  vm.size = size_of;
  vm.scan = scan;
  vm.thread_roots = roots_of;
  vm.type_of = type_of;
  vm.violation = violation;
  return vm;
}
static hw_object node(hw_mutator *m, size_t bytes, size_t type) {
  hw_object o = NULL;
  EXPECT(hw_alloc(m, bytes, &o) == HW_OK);
  ((Node *)o)->header |= bytes << 8 | type << 40;
  return o;
}

static void tables(void) {
  hw_heap *heap = (hw_heap *)1;
  hw_vm vm = table(0);
  EXPECT(hw_heap_new(NULL, NULL, &heap) == HW_INVALID && heap == NULL);
  EXPECT(hw_heap_new(&vm, NULL, NULL) == HW_INVALID);
  vm.scan = NULL;
  EXPECT(hw_heap_new(&vm, NULL, &heap) == HW_INVALID && strstr(hw_last_error(), "scan"));
  vm = table(0), vm.size = NULL;
  EXPECT(hw_heap_new(&vm, NULL, &heap) == HW_INVALID && strstr(hw_last_error(), "size"));
  vm = table(0), vm.thread_roots = NULL;
  EXPECT(hw_heap_new(&vm, NULL, &heap) == HW_INVALID && strstr(hw_last_error(), "thread_roots"));
  vm = table(0), vm.abi_version = HW_ABI_VERSION + 1;
  EXPECT(hw_heap_new(&vm, NULL, &heap) == HW_VERSION && strstr(hw_last_error(), "compile it with the header"));
  vm = table(0), vm.struct_size = 16;
  EXPECT(hw_heap_new(&vm, NULL, &heap) == HW_VERSION);
  vm = table(64);
  EXPECT(hw_heap_new(&vm, NULL, &heap) == HW_INVALID && strstr(hw_last_error(), "HW_OBJECT_MAP"));
  EXPECT(hw_abi_version() == HW_ABI_VERSION);
}

static void options(void) {
  hw_options *o = hw_options_new();
  hw_option row;
  size_t n = 0, plans = 0;
  EXPECT(hw_options_set(o, "colour", "red") == HW_BAD_OPTION && strstr(hw_last_error(), "workers"));
  EXPECT(hw_options_set(o, "plan", "fastest") == HW_BAD_OPTION && strstr(hw_last_error(), "genimmix"));
  EXPECT(hw_options_set(o, NULL, "1") == HW_INVALID && hw_options_set(NULL, "max", "1") == HW_INVALID);
  EXPECT(hw_options_set(o, "max", "\xff") == HW_INVALID);
  EXPECT(hw_options_set(o, "plan", "gencopy") == HW_OK && strcmp(hw_options_plan(o), "gencopy") == 0);
  while (hw_option_at(n, &row)) EXPECT(row.name[0] && row.meaning[0]), n++;
  while (hw_plan_at(plans)) plans++;
  EXPECT(n > 8 && plans == 11 && hw_options_plan(NULL) == NULL);
  hw_options_free(o);
  hw_options_free(NULL);
}

static void outside(void *context) { ++*(int *)context; }
static void count(void *context, hw_object o) { (void)o; ++*(size_t *)context; }
static void count_type(void *context, uint32_t type, size_t objects, size_t bytes) {
  ((size_t *)context)[type] = objects * 10000 + bytes / (objects ? objects : 1);
}

static hw_heap *make(const char *plan, uint32_t flags, const char *max) {
  hw_vm vm = table(flags);
  hw_options *o = hw_options_new();
  hw_heap *heap;
  EXPECT(hw_options_set(o, "plan", plan) == HW_OK && hw_options_set(o, "max", max) == HW_OK && hw_options_set(o, "verify", "1") == HW_OK);
  EXPECT(hw_heap_new(&vm, o, &heap) == HW_OK);
  hw_options_free(o);
  return heap;
}

static void uses(const char *plan, uint32_t flags) {
  hw_heap *heap = make(plan, flags, "16m"), *other = make("marksweep", 0, "16m");
  Thread thread = {{0}};
  hw_mutator *m = NULL, *m2 = NULL;
  hw_object o, before;
  hw_weak *weak, *phantom;
  hw_weak_map *map;
  void *token;
  int calls = 0;
  size_t n = 0, counts[4] = {0};
  EXPECT(hw_attach(heap, &thread, NULL) == HW_INVALID && hw_attach(NULL, &thread, &m) == HW_INVALID && m == NULL);
  EXPECT(hw_attach(heap, &thread, &m) == HW_OK && hw_attach(other, &thread, &m2) == HW_OK);
  EXPECT(hw_alloc(m, (size_t)-1, &o) == HW_INVALID && o == NULL);
  EXPECT(hw_alloc(m, (size_t)1 << 40, &o) == HW_OUT_OF_MEMORY || o == NULL);
  EXPECT(hw_alloc(m, 0, &o) == HW_OK);
  ((Node *)o)->header |= 16 << 8 | (size_t)1 << 40;
  EXPECT(hw_alloc_slow(NULL, 16, &o) == HW_INVALID && hw_alloc_slow(m, 16, NULL) == HW_INVALID);
  EXPECT(hw_alloc_aligned(m, 64, 3, 0, &o) == HW_INVALID);
  EXPECT(hw_alloc_aligned(m, 64, 64, 8, &o) == HW_OK && ((size_t)o + 8) % 64 == 0);
  ((Node *)o)->header |= 64 << 8 | (size_t)1 << 40;
  /* A list in the first root, with a finalizer on each tenth node. */
  for (int i = 0; i < 1000; i++) {
    o = node(m, 24, 0);
    hw_write(m, o, &((Node *)o)->next, thread.slots[0]);
    thread.slots[0] = o;
    if (i % 10 == 0) EXPECT(hw_add_finalizer(m, o, HW_TOGETHER, &thread) == HW_OK);
  }
  EXPECT(hw_add_finalizer(m, o, 9, NULL) == HW_INVALID && hw_add_finalizer(m, NULL, HW_TOGETHER, NULL) == HW_INVALID);
  EXPECT(hw_weak_new(m, o, HW_WEAK, &weak) == HW_OK && hw_weak_new(m, o, HW_PHANTOM, &phantom) == HW_OK);
  EXPECT(hw_weak_new(m, o, 5, &weak) == HW_INVALID && weak == NULL);
  EXPECT(hw_weak_new(m, o, HW_WEAK, &weak) == HW_OK && hw_weak_get(weak, m) == o && hw_weak_get(phantom, m) == NULL);
  EXPECT(hw_weak_get(NULL, m) == NULL && hw_weak_get(weak, NULL) == NULL && hw_weak_is_cleared(NULL));
  if (flags == 0) EXPECT(hw_weak_get(weak, m2) == NULL);
  EXPECT(hw_weak_map_new(m, &map) == HW_OK);
  thread.slots[1] = node(m, 24, 0);
  o = thread.slots[0];
  EXPECT(hw_weak_map_set(map, m, o, thread.slots[1], &before) == HW_OK && before == NULL);
  EXPECT(hw_weak_map_set(map, m2, o, thread.slots[1], &before) == HW_INVALID);
  EXPECT(hw_weak_map_set(map, m, NULL, o, NULL) == HW_INVALID && hw_weak_map_count(map) == 1);
  size_t hash = hw_identity_hash(m, o);
  EXPECT(hw_identity_hash(NULL, o) == 0 && hw_identity_hash(m, NULL) == 0);
  thread.slots[1] = NULL;
  EXPECT(hw_collect(m) == HW_OK && hw_collect_young(m) == HW_OK && hw_collect(NULL) == HW_INVALID);
  o = thread.slots[0];
  EXPECT(hw_identity_hash(m, o) == hash && hw_weak_get(weak, m) == o);
  EXPECT(hw_weak_map_get(map, m, o) != NULL && hw_weak_map_get(map, m, NULL) == NULL);
  EXPECT(hw_pin(heap, o) == HW_OK && hw_collect(m) == HW_OK && thread.slots[0] == o);
  EXPECT(hw_unpin(heap, o) == HW_OK && hw_unpin(heap, o) == HW_NOT_PINNED && hw_unpin(NULL, o) == HW_INVALID);
  EXPECT(hw_outside(m, outside, &calls) == HW_OK && calls == 1 && hw_outside(m, NULL, NULL) == HW_INVALID);
  EXPECT(!hw_next_finalizable(m, &o, &token));
  if (flags & HW_OBJECT_MAP) {
    /* Only a word inside of the object keeps it, and where it is. */
    thread.slots[40] = (char *)node(m, 48, 0) + 5;
    EXPECT(hw_collect(m) == HW_OK);
    hw_object kept = (char *)thread.slots[40] - 5;
    EXPECT(hw_is_object(heap, (size_t)kept) && hw_object_around(heap, (size_t)thread.slots[40]) == kept);
    EXPECT(!hw_is_object(heap, 0) && hw_object_around(heap, (size_t)-1) == NULL);
    EXPECT(hw_for_each_object(m, count, &n) == HW_OK && n >= 1001 && hw_for_each_object(m, NULL, &n) == HW_INVALID);
    EXPECT(hw_census(m, count_type, counts) == HW_OK && counts[0] / 10000 >= 1001);
  } else {
    EXPECT(hw_for_each_object(m, count, &n) == HW_UNSUPPORTED && hw_census(m, count_type, counts) == HW_UNSUPPORTED);
    EXPECT(!hw_is_object(heap, (size_t)thread.slots[0]) && hw_object_around(heap, (size_t)thread.slots[0]) == NULL);
  }
  EXPECT(hw_heap_set_limits(heap, 0, 4096) == HW_INVALID && strstr(hw_last_error(), "4096"));
  thread.slots[0] = NULL;
  EXPECT(hw_collect(m) == HW_OK && hw_weak_is_cleared(weak));
  while (hw_next_finalizable(m, &o, &token)) EXPECT(token == &thread), n++;
  EXPECT(hw_collect(m) == HW_OK && hw_collect(m) == HW_OK && hw_weak_is_cleared(phantom) && hw_weak_map_count(map) == 0);
  hw_usage usage;
  EXPECT(hw_heap_usage(heap, &usage) == HW_OK && usage.collections >= 6 && hw_heap_usage(heap, NULL) == HW_INVALID);
  EXPECT(hw_external_allocated(m, 1 << 20) == HW_OK && hw_heap_usage(heap, &usage) == HW_OK && usage.external_bytes == 1 << 20);
  EXPECT(hw_external_freed(heap, 1 << 20) == HW_OK);
  EXPECT(hw_heap_set_limits(heap, 2 << 20, 1 << 20) == HW_INVALID);
  EXPECT(hw_heap_set_limits(heap, 0, 8 << 20) == HW_OK);
  EXPECT(hw_detach(m2) == HW_OK && hw_detach(m2) == HW_GONE && hw_detach(NULL) == HW_INVALID);
  EXPECT(hw_heap_free(other) == HW_OK && hw_heap_free(other) == HW_GONE && hw_heap_free(NULL) == HW_INVALID);
  /* The heap lives on until its last thread has left. */
  EXPECT(hw_heap_free(heap) == HW_OK && hw_alloc(m, 64, &o) == HW_OK);
  ((Node *)o)->header |= 64 << 8;
  EXPECT(hw_detach(m) == HW_OK && hw_weak_is_cleared(weak));
  hw_weak_free(weak), hw_weak_free(phantom), hw_weak_free(NULL);
  hw_weak_map_free(map), hw_weak_map_free(NULL);
}

/* A full heap is an error, and goes on when there is room again. */
static void full(const char *plan) {
  hw_heap *heap = make(plan, 0, "2m");
  Thread thread = {{0}};
  hw_mutator *m;
  hw_object o;
  hw_status status;
  EXPECT(hw_attach(heap, &thread, &m) == HW_OK);
  for (;;) {
    status = hw_alloc(m, 64, &o);
    if (status != HW_OK) break;
    ((Node *)o)->header |= 64 << 8;
    hw_write(m, o, &((Node *)o)->next, thread.slots[0]);
    thread.slots[0] = o;
  }
  EXPECT(status == HW_OUT_OF_MEMORY && o == NULL && strcmp(hw_status_name(status), "out of memory") == 0);
  thread.slots[0] = NULL;
  for (int i = 0; i < 100000; i++) node(m, 64, 0);
  EXPECT(hw_detach(m) == HW_OK && hw_heap_free(heap) == HW_OK);
}

static hw_heap *shared;
static void *work(void *unused) {
  Thread thread = {{0}};
  hw_mutator *m;
  (void)unused;
  EXPECT(hw_attach(shared, &thread, &m) == HW_OK);
  for (int i = 0; i < 20000; i++) {
    hw_object o = node(m, 24, 0);
    hw_write(m, o, &((Node *)o)->next, i % 100 ? thread.slots[0] : NULL);
    thread.slots[0] = o;
    hw_poll(m);
  }
  int length = 0;
  for (hw_object o = thread.slots[0]; o != NULL; o = ((Node *)o)->next) length++;
  EXPECT(length == 100);
  EXPECT(hw_detach(m) == HW_OK);
  return NULL;
}
static void threads(const char *plan) {
  pthread_t all[3];
  shared = make(plan, 0, "4m");
  for (int i = 0; i < 3; i++) pthread_create(&all[i], NULL, work, NULL);
  for (int i = 0; i < 3; i++) pthread_join(all[i], NULL);
  EXPECT(hw_heap_free(shared) == HW_OK);
}

int main(void) {
  tables();
  options();
  for (size_t i = 1; hw_plan_at(i); i++) {
    const char *plan = hw_plan_at(i);
    if (strcmp(plan, "pageprotect") == 0) continue;
    uses(plan, 0);
    uses(plan, HW_OBJECT_MAP);
    full(plan);
    threads(plan);
  }
  EXPECT(strcmp(hw_status_name(77), "unknown") == 0);
  printf("%d failures, %d broken heaps\n", failures, bad);
  return failures != 0 || bad != 0;
}

/* Kinds, mark procedures, descriptors, chains. What a descriptor does not name keeps nothing: links tell. */
#include "check.h"
#include <gc/gc_mark.h>
#include <gc/gc_typed.h>

enum { N = 64 };
static unsigned proc_index;
static struct GC_ms_entry *mark_second(GC_word *object, struct GC_ms_entry *top, struct GC_ms_entry *limit, GC_word env) {
  CHECK(env == 5);
  /* The first word of a free cell is a link, so only what is in use has a second one. */
  return GC_MARK_AND_PUSH((void *)object[1], top, limit, (void **)&object[1]);
}

static void *watched(void **link) {
  char *p = GC_MALLOC(48);
  memset(p, 0x3c, 48);
  *link = (void *)HIDDEN(p);
  CHECK(GC_general_register_disappearing_link(link, p) == GC_SUCCESS);
  return p;
}

static void **first, **second, ***objects;
/* Each object refers to two others, by its words 0 and 1. */
static void __attribute__((noinline)) fill(void **(*make)(void)) {
  first = GC_malloc_atomic_uncollectable(N * sizeof(void *));
  second = GC_malloc_atomic_uncollectable(N * sizeof(void *));
  objects = GC_MALLOC(N * sizeof *objects);
  for (int i = 0; i < N; i++) {
    objects[i] = make();
    CHECK(objects[i]);
    objects[i][0] = watched(&first[i]);
    objects[i][1] = watched(&second[i]);
  }
}
static int gone(void **links) {
  int n = 0;
  for (int i = 0; i < N; i++) n += links[i] == NULL;
  return n;
}
static void check(const char *what, void **(*make)(void), int keeps_first, int keeps_second) {
  fill(make);
  collect();
  if (gone(first) != (keeps_first ? 0 : N) || gone(second) != (keeps_second ? 0 : N)) {
    /* A few may be held by stale words. */
    CHECK(keeps_first ? gone(first) == 0 : gone(first) > N - 8);
    CHECK(keeps_second ? gone(second) == 0 : gone(second) > N - 8);
  }
  for (int i = 0; i < N; i++)
    if (keeps_second) CHECK(*(char *)objects[i][1] == 0x3c);
  (void)what;
}

static int kind;
static GC_descr only_second;
static void **plain(void) { return GC_MALLOC(64); }
static void **atomic(void) { return GC_MALLOC_ATOMIC(64); }
static void **by_procedure(void) { return GC_generic_malloc(64, kind); }
static void **typed(void) { return GC_MALLOC_EXPLICITLY_TYPED(64, only_second); }
static void **typed_array(void) { return GC_CALLOC_EXPLICITLY_TYPED(4, 16, only_second); }

static void *refuse(size_t bytes) {
  (void)bytes;
  return NULL;
}

int main(void) {
  GC_INIT();
  proc_index = GC_new_proc(mark_second);
  kind = (int)GC_new_kind(GC_new_free_list(), GC_MAKE_PROC(proc_index, 5), 0, 1);
  GC_word bits[1] = {0};
  GC_set_bit(bits, 1);
  only_second = GC_make_descriptor(bits, 2);
  check("plain", plain, 1, 1);
  check("atomic", atomic, 0, 0);
  check("procedure", by_procedure, 0, 1);
  check("typed", typed, 0, 1);
  check("typed array", typed_array, 0, 1);
  GC_set_oom_fn(refuse);
  CHECK(GC_CALLOC_EXPLICITLY_TYPED(SIZE_MAX / 2, 16, only_second) == NULL);
  CHECK(GC_CALLOC_EXPLICITLY_TYPED(16, SIZE_MAX / 2, only_second) == NULL);
  CHECK(GC_MALLOC_EXPLICITLY_TYPED(SIZE_MAX - 4, only_second) == NULL);

  /* Chains: every cell is the caller's, and zero but for its link. */
  static void *list;
  int cells = 0;
  for (int i = 0; i < 200; i++) {
    void *chain = GC_malloc_many(64);
    CHECK(chain);
    while (chain) {
      void **cell = chain;
      chain = GC_NEXT(cell);
      for (int word = 1; word < 8; word++) CHECK(cell[word] == NULL);
      memset(cell, 0x11, 64);
      cell[0] = list, cell[1] = (void *)HIDDEN(cell);
      list = cell;
      cells++;
    }
  }
  collect();
  for (void **cell = list; cell; cell = *cell, cells--) CHECK(cell[1] == (void *)HIDDEN(cell));
  CHECK(cells == 0);
  return 0;
}

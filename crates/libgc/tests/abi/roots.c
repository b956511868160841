/* Where the collector looks: static data, thread-local data, registered ranges, stacks of fibers, loaded libraries. */
#include "check.h"
#include <dlfcn.h>
#include <gc/gc_mark.h>
#include <sys/mman.h>
#include <ucontext.h>

static void *statically;
static __thread void *locally;
static void **region;
static void **fiber_words;

static void *marked(int number) {
  int *p = GC_MALLOC(64);
  for (int i = 0; i < 16; i++) p[i] = number;
  return p;
}
static void still(void *object, int number) {
  for (int i = 0; i < 16; i++) CHECK(((int *)object)[i] == number);
}
static void churn(void) {
  collect();
  for (int i = 0; i < 50000; i++) memset(GC_MALLOC(64), 0x7e, 64);
  collect();
}

static GC_push_other_roots_proc before;
static void push(void) {
  GC_push_all_eager(fiber_words, fiber_words + 4);
  if (before) before();
}

static void *thread(void *arg) {
  locally = marked(7);
  churn();
  still(locally, 7);
  return arg;
}

int main(int argc, char **argv) {
  GC_INIT();
  statically = marked(1);
  locally = marked(2);
  region = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  fiber_words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  GC_add_roots(region, region + 512);
  region[100] = marked(3);
  before = GC_get_push_other_roots();
  GC_set_push_other_roots(push);
  CHECK(GC_get_push_other_roots() == push);
  fiber_words[2] = (char *)marked(4) + 20;
  void **library = NULL;
  if (argc > 1) {
    void *handle = dlopen(argv[1], RTLD_NOW);
    CHECK(handle);
    library = dlsym(handle, "a_root");
    CHECK(library);
    *library = marked(5);
  }
  churn();
  still(statically, 1), still(locally, 2), still(region[100], 3), still((char *)fiber_words[2] - 20, 4);
  if (library) still(*library, 5);
  /* What is no root any more keeps nothing. */
  void **link = GC_malloc_atomic_uncollectable(64 * 8);
  for (int i = 0; i < 64; i++) {
    void *p = marked(9);
    region[200 + i] = p;
    link[i] = (void *)HIDDEN(p);
    CHECK(GC_general_register_disappearing_link(&link[i], p) == GC_SUCCESS);
  }
  collect();
  for (int i = 0; i < 64; i++) CHECK(link[i] != NULL);
  GC_remove_roots(region, region + 512);
  collect();
  int gone = 0;
  for (int i = 0; i < 64; i++) gone += link[i] == NULL;
  CHECK(gone > 56);
  pthread_t t;
  CHECK(GC_pthread_create(&t, NULL, thread, NULL) == 0);
  churn();
  CHECK(GC_pthread_join(t, NULL) == 0);
  struct GC_stack_base base;
  CHECK(GC_get_my_stackbottom(&base) != NULL && base.mem_base != NULL);
  CHECK((char *)base.mem_base > (char *)&base);
  return 0;
}

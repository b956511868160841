/* fork handled by the client: GC_set_handle_fork(-1) and the three functions around each fork, while threads allocate. */
#include "check.h"

static volatile int ending;

static void *churn(void *key) {
  void **kept = NULL;
  for (long i = 0; !ending; i++) {
    void **p = GC_MALLOC(16 + i % 200);
    CHECK(p != NULL);
    p[1] = key;
    p[0] = i % 1000 ? kept : NULL;
    kept = p;
    if (i % 1000 == 999)
      for (void **q = kept; q; q = *q) CHECK(q[1] == key);
  }
  return NULL;
}

static volatile int asked, had_it;

static void *note(void *unused) {
  had_it = 1;
  return unused;
}

static volatile int held_by_main;

static void *asking(void *unused) {
  while (!held_by_main) usleep(1000);
  asked = 1;
  GC_call_with_alloc_lock(note, NULL);
  return unused;
}

/* Who did not make the heap ready does not give its lock back: the heap may have been made since, and another has it. */
static void *holding(void *unused) {
  GC_atfork_parent();
  held_by_main = 1;
  while (!asked) usleep(1000);
  usleep(100000);
  CHECK(!had_it);
  return unused;
}

int main(void) {
  GC_set_handle_fork(-1);
  GC_INIT();
  GC_allow_register_threads();
  pthread_t threads[2];
  for (long i = 0; i < 2; i++) CHECK(GC_pthread_create(&threads[i], NULL, churn, (void *)(i + 1)) == 0);
  void **held = NULL;
  for (long i = 0; i < 1000; i++) {
    void **p = GC_MALLOC(64);
    p[0] = held;
    p[1] = (void *)i;
    held = p;
  }
  for (int round = 0; round < 50; round++) {
    GC_atfork_prepare();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      GC_atfork_child();
      alarm(60);
      for (int i = 0; i < 20000; i++) CHECK(GC_MALLOC(100) != NULL);
      GC_gcollect();
      long at = 1000;
      for (void **p = held; p; p = p[0]) CHECK(p[1] == (void *)--at);
      CHECK(at == 0);
      _exit(0);
    }
    GC_atfork_parent();
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    GC_gcollect();
  }
  ending = 1;
  pthread_t asks;
  CHECK(GC_pthread_create(&asks, NULL, asking, NULL) == 0);
  GC_call_with_alloc_lock(holding, NULL);
  CHECK(GC_pthread_join(asks, NULL) == 0);
  CHECK(had_it);
  for (int i = 0; i < 2; i++) CHECK(GC_pthread_join(threads[i], NULL) == 0);
  return 0;
}

/* fork, while other threads allocate: the child has a heap that works. */
#include "check.h"

static volatile int stop;
static void *worker(void *arg) {
  void **list = NULL;
  for (unsigned i = 0; !stop; i++) {
    void **p = GC_MALLOC(16 + i % 300);
    *p = i % 500 ? list : NULL;
    list = p;
  }
  return arg;
}

static void work(int number) {
  int **list = NULL;
  for (int i = 0; i < 20000; i++) {
    int **p = GC_MALLOC(32);
    p[0] = (int *)list;
    p[1] = GC_MALLOC_ATOMIC(16);
    *p[1] = number + i;
    list = p;
    if (i == 10000) GC_gcollect();
  }
  for (int i = 20000; i-- > 0; list = (int **)list[0]) CHECK(*list[1] == number + i);
}

int main(void) {
  GC_set_handle_fork(1);
  GC_INIT();
  pthread_t t[3];
  for (int i = 0; i < 3; i++) CHECK(GC_pthread_create(&t[i], NULL, worker, NULL) == 0);
  void **kept = GC_MALLOC(16);
  *kept = GC_STRDUP("from before");
  for (int i = 0; i < 40; i++) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      alarm(50);
      work(i);
      CHECK(!strcmp(*kept, "from before"));
      pthread_t u;
      stop = 1;
      CHECK(GC_pthread_create(&u, NULL, worker, NULL) == 0 && GC_pthread_join(u, NULL) == 0);
      GC_gcollect();
      _exit(42);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 42);
  }
  stop = 1;
  for (int i = 0; i < 3; i++) CHECK(GC_pthread_join(t[i], NULL) == 0);
  work(0);
  return 0;
}

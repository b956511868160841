/* A storm of signals while threads allocate and collect. */
#include "check.h"
#include <signal.h>
#include <time.h>

static volatile sig_atomic_t seen;
static void handler(int signal) {
  volatile char room[2000];
  memset((void *)room, signal, sizeof room);
  seen++;
}

static void *worker(void *arg) {
  if (arg) {
    /* One of them blocks what the client's timer sends. */
    sigset_t set;
    sigemptyset(&set), sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
  }
  void **list = NULL;
  for (int i = 0; i < 150000; i++) {
    void **p = GC_MALLOC(16 + i % 200);
    *p = i % 1000 ? list : NULL;
    list = p;
    if (i % 50000 == 0) GC_gcollect();
  }
  int length = 0;
  for (; list; list = *list) length++;
  CHECK(length == 1000);
  return NULL;
}

int main(void) {
  GC_INIT();
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
  CHECK(sigaction(SIGALRM, &action, NULL) == 0);
  CHECK(GC_get_suspend_signal() != GC_get_thr_restart_signal() && GC_get_suspend_signal() != SIGALRM);
  timer_t timer;
  CHECK(timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0);
  struct itimerspec often = {{0, 300000}, {0, 300000}};
  CHECK(timer_settime(timer, 0, &often, NULL) == 0);
  pthread_t t[4];
  for (uintptr_t i = 0; i < 4; i++) CHECK(GC_pthread_create(&t[i], NULL, worker, (void *)(uintptr_t)(i == 3)) == 0);
  for (int i = 0; i < 4; i++) CHECK(GC_pthread_join(t[i], NULL) == 0);
  CHECK(seen > 10);
  return 0;
}

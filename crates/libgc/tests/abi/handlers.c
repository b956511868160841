/* A signal that arrives while the world is stopped is handled afterwards: a handler may wait for what a stopped thread holds. */
#include "check.h"
#include <gc/gc_mark.h>
#include <sched.h>
#include <signal.h>

static volatile sig_atomic_t handled, ending, asked;
static volatile int inside, early, lock;
static void (*before)(void);

static void on_signal(int number) {
  (void)number;
  if (inside) early++;
  /* What the other thread holds again and again: not to be had while that thread is stopped. */
  while (__sync_lock_test_and_set(&lock, 1)) sched_yield();
  __sync_lock_release(&lock);
  handled++;
}

static void *hold(void *arg) {
  while (!ending) {
    while (__sync_lock_test_and_set(&lock, 1)) sched_yield();
    for (volatile int i = 0; i < 1000; i++) {}
    __sync_lock_release(&lock);
    sched_yield();
  }
  return arg;
}

static void push(void) {
  inside = 1;
  if (asked) pthread_kill(pthread_self(), SIGUSR1);
  if (before) before();
  inside = 0;
}

int main(void) {
  alarm(60);
  struct sigaction action = {.sa_handler = on_signal};
  CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
  GC_INIT();
  GC_allow_register_threads();
  before = GC_get_push_other_roots();
  GC_set_push_other_roots(push);
  pthread_t t;
  CHECK(GC_pthread_create(&t, NULL, hold, NULL) == 0);
  sigset_t was, is;
  CHECK(pthread_sigmask(SIG_BLOCK, NULL, &was) == 0);
  for (int i = 1; i <= 50; i++) {
    asked = 1;
    GC_gcollect();
    asked = 0;
    CHECK(handled >= i);
  }
  CHECK(early == 0);
  CHECK(pthread_sigmask(SIG_BLOCK, NULL, &is) == 0 && sigismember(&is, SIGUSR1) == sigismember(&was, SIGUSR1));
  ending = 1;
  CHECK(GC_pthread_join(t, NULL) == 0);
  return 0;
}

/* A process that forks, with threads that allocate, attach and detach meanwhile: the child has a working heap. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "expect.h"

typedef struct { size_t header; hw_object next; } Node;
typedef struct { hw_object list; hw_object garbage; } Thread;

static size_t size_of(void *user, hw_object o) { (void)user; return hw_size(o, sizeof(Node)); }
static void scan(void *user, hw_object o, hw_slot_visitor *v) { (void)user; hw_visit(v, &((Node *)o)->next, 1); }

static hw_heap *in_roots;
static hw_status said_in_roots = HW_OK;
static void roots_of(void *user, void *thread, hw_root_visitor *v) {
  (void)user;
  if (in_roots != NULL) {
    hw_fork *fork = (hw_fork *)1;
    said_in_roots = hw_heap_prepare_fork(in_roots, &fork);
    if (fork != NULL) said_in_roots = HW_OK;
  }
  hw_root(v, &((Thread *)thread)->list, 2);
}
static atomic_int bad;
static void violation(void *user, const char *what, hw_object o, size_t w) { (void)user; (void)o; (void)w; printf("%s\n", what); bad++; }
static Thread *wanted;
static bool stays(void *user, void *thread) { (void)user; return thread == wanted; }

static hw_heap *make(const char *plan) {
  hw_vm vm = {.struct_size = sizeof vm, .abi_version = HW_ABI_VERSION, .size = size_of, .scan = scan, .thread_roots = roots_of, .violation = violation, .stays_after_fork = stays};
  hw_heap *heap = NULL;
  hw_options *o = hw_options_new();
  EXPECT(hw_options_set(o, "plan", plan) == HW_OK && hw_options_set(o, "max", "16m") == HW_OK);
  EXPECT(hw_options_set(o, "workers", "2") == HW_OK && hw_options_set(o, "verify", "1") == HW_OK);
  EXPECT(hw_heap_new(&vm, o, &heap) == HW_OK);
  hw_options_free(o);
  return heap;
}

static void push(hw_mutator *m, hw_object *list) {
  hw_object o = NULL;
  EXPECT(hw_alloc(m, sizeof(Node), &o) == HW_OK);
  if (o == NULL) return;
  hw_write(m, o, &((Node *)o)->next, *list);
  *list = o;
}
static int length(hw_object o) {
  int n = 0;
  for (; o != NULL; o = ((Node *)o)->next) n++;
  return n;
}

/* What a child does, and the parent too: what lives is there, and there is room for more. */
static void work(hw_mutator *m, Thread *t, int kept) {
  EXPECT(length(t->list) == kept);
  for (int round = 0; round < 3; round++) {
    t->garbage = NULL;
    for (int i = 0; i < 3000; i++) push(m, &t->garbage);
    EXPECT(hw_collect(m) == HW_OK);
    EXPECT(length(t->list) == kept && length(t->garbage) == 3000);
  }
}
static void end(void) {
  fflush(stdout);
  _exit(failures != 0 || bad != 0);
}
static void await(pid_t pid, const char *plan) {
  int status = -1;
  EXPECT(waitpid(pid, &status, 0) == pid);
  if (status != 0) printf("%s: the child ended with wait status %#x\n", plan, (unsigned)status), failures++;
}

static hw_heap *shared;
static atomic_int over, ready;
static void *allocates(void *unused) {
  Thread t = {NULL, NULL};
  hw_mutator *m;
  (void)unused;
  EXPECT(hw_attach(shared, &t, &m) == HW_OK);
  for (int i = 0; i < 100; i++) push(m, &t.list);
  ready++;
  for (int i = 1; !over; i++) {
    push(m, &t.garbage);
    if (i % 1000 == 0) t.garbage = NULL;
  }
  EXPECT(length(t.list) == 100);
  EXPECT(hw_detach(m) == HW_OK);
  return NULL;
}
static void *comes_and_goes(void *unused) {
  (void)unused;
  ready++;
  while (!over) {
    Thread t = {NULL, NULL};
    hw_mutator *m;
    hw_heap *other = make("immix");
    hw_usage usage;
    EXPECT(hw_heap_usage(shared, &usage) == HW_OK);
    EXPECT(hw_attach(other, &t, &m) == HW_OK);
    EXPECT(hw_detach(m) == HW_OK && hw_heap_free(other) == HW_OK);
    /* Mostly with the lock of all handles in hand. */
    for (int i = 0; i < 5000; i++) EXPECT(hw_detach(m) == HW_GONE);
  }
  return NULL;
}

static pid_t no_fork(void) { errno = EAGAIN; return -1; }

/* 12 forks of a plan from a mutator, with one thread that allocates and one that makes and frees handles. */
static void under_load(const char *plan) {
  pthread_t threads[2];
  Thread t = {NULL, NULL}, gone = {NULL, NULL};
  hw_mutator *m, *other;
  over = 0;
  ready = 0;
  wanted = NULL;
  shared = make(plan);
  pthread_create(&threads[0], NULL, allocates, NULL);
  pthread_create(&threads[1], NULL, comes_and_goes, NULL);
  while (ready < 2) sched_yield();
  EXPECT(hw_attach(shared, &t, &m) == HW_OK);
  for (int i = 0; i < 500; i++) push(m, &t.list);
  for (int n = 0; n < 12; n++) {
    pid_t pid = -2;
    EXPECT(hw_fork_with(m, fork, &pid) == HW_OK);
    if (pid == 0) {
      alarm(20);
      work(m, &t, 500);
      /* Handles can be made and freed: nobody has their locks. */
      EXPECT(hw_attach(shared, &gone, &other) == HW_OK && hw_detach(other) == HW_OK);
      EXPECT(hw_heap_free(make("semispace")) == HW_OK);
      end();
    }
    EXPECT(pid > 0);
    await(pid, plan);
  }
  work(m, &t, 500);
  over = 1;
  EXPECT(hw_detach(m) == HW_OK);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  EXPECT(hw_heap_free(shared) == HW_OK);
}

/* ---- a runtime that has the C library call it at each fork ---------------------------------------------------------------- */

static hw_heap *heaps[2];
static hw_fork *forks[2];
static void before(void) {
  for (int i = 0; i < 2; i++) {
    forks[i] = NULL;
    if (heaps[i]) EXPECT(hw_heap_prepare_fork(heaps[i], &forks[i]) == HW_OK);
  }
}
static void parent(void) {
  for (int i = 0; i < 2; i++) if (forks[i]) EXPECT(hw_fork_parent(forks[i]) == HW_OK);
}
static void child(void) {
  for (int i = 0; i < 2; i++) if (forks[i]) EXPECT(hw_fork_child(forks[i]) == HW_OK);
}
static pid_t forked;
static void forks_outside(void *unused) { (void)unused; forked = fork(); }
static void waits_outside(void *unused) { (void)unused; ready++; while (!over) sched_yield(); }
typedef struct { Thread thread; hw_mutator *m; } Blocked;
static void *is_outside(void *given) {
  Blocked *b = given;
  EXPECT(hw_attach(heaps[0], &b->thread, &b->m) == HW_OK);
  for (int i = 0; i < 50; i++) push(b->m, &b->thread.list);
  EXPECT(hw_outside(b->m, waits_outside, NULL) == HW_OK);
  EXPECT(length(b->thread.list) == 50);
  EXPECT(hw_detach(b->m) == HW_OK);
  return NULL;
}

static void with_handlers(const char *plan) {
  pthread_t threads[2];
  Thread t = {NULL, NULL};
  Blocked blocked[2] = {{{NULL, NULL}, NULL}, {{NULL, NULL}, NULL}};
  hw_mutator *m;
  over = 0;
  ready = 0;
  heaps[0] = make(plan), heaps[1] = make("genimmix");
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, is_outside, &blocked[i]);
  while (ready < 2) sched_yield();
  wanted = &blocked[0].thread;
  EXPECT(hw_attach(heaps[0], &t, &m) == HW_OK);
  for (int i = 0; i < 200; i++) push(m, &t.list);
  EXPECT(hw_outside(m, forks_outside, NULL) == HW_OK);
  if (forked == 0) {
    Thread second = {NULL, NULL};
    hw_mutator *in_second;
    alarm(20);
    work(m, &t, 200);
    EXPECT(hw_attach(heaps[1], &second, &in_second) == HW_OK);
    work(in_second, &second, 0);
    /* One of the two that were outside stays, with what it holds; the other's thread is gone, and it may be detached. */
    EXPECT(length(blocked[0].thread.list) == 50);
    EXPECT(hw_detach(blocked[1].m) == HW_OK && hw_detach(blocked[1].m) == HW_GONE);
    EXPECT(hw_collect(m) == HW_OK && length(t.list) == 200);
    end();
  }
  await(forked, plan);
  work(m, &t, 200);
  over = 1;
  EXPECT(hw_detach(m) == HW_OK);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < 2; i++) EXPECT(hw_heap_free(heaps[i]) == HW_OK), heaps[i] = NULL;
}

/* ---- wrong uses ------------------------------------------------------------------------------------------------------------ */

static void *of_another_thread(void *ready_fork) {
  EXPECT(hw_fork_parent(ready_fork) == HW_GONE);
  return NULL;
}
static void misuse(void) {
  Thread t = {NULL, NULL};
  hw_heap *heap = make("immix");
  hw_mutator *m;
  hw_fork *ready_fork = (hw_fork *)1;
  pthread_t thread;
  pid_t pid = 5;
  hw_vm vm;
  hw_heap *old = NULL;
  EXPECT(hw_attach(heap, &t, &m) == HW_OK);
  EXPECT(hw_prepare_fork(NULL, &ready_fork) == HW_INVALID && ready_fork == NULL);
  EXPECT(hw_prepare_fork(m, NULL) == HW_INVALID);
  EXPECT(hw_heap_prepare_fork(NULL, &ready_fork) == HW_INVALID && hw_heap_prepare_fork(heap, NULL) == HW_INVALID);
  EXPECT(hw_fork_parent(NULL) == HW_INVALID && hw_fork_child(NULL) == HW_INVALID);
  EXPECT(hw_fork_with(NULL, fork, &pid) == HW_INVALID && pid == -1);
  EXPECT(hw_fork_with(m, NULL, &pid) == HW_INVALID && hw_fork_with(m, fork, NULL) == HW_INVALID);
  EXPECT(hw_prepare_fork(m, &ready_fork) == HW_OK);
  pthread_create(&thread, NULL, of_another_thread, ready_fork);
  pthread_join(thread, NULL);
  EXPECT(hw_fork_parent(ready_fork) == HW_OK && hw_fork_parent(ready_fork) == HW_GONE && hw_fork_child(ready_fork) == HW_GONE);
  EXPECT(hw_fork_with(m, no_fork, &pid) == HW_SYSTEM && pid == -1 && errno == EAGAIN);
  work(m, &t, 0);
  in_roots = heap;
  EXPECT(hw_collect(m) == HW_OK && said_in_roots == HW_IN_COLLECTION);
  in_roots = NULL;
  EXPECT(strcmp(hw_status_name(HW_IN_COLLECTION), "in a collection") == 0);
  EXPECT(hw_detach(m) == HW_OK && hw_heap_free(heap) == HW_OK);
  /* The table of a program that was compiled before there was `stays_after_fork`. */
  memset(&vm, 0xff, sizeof vm);
  memset(&vm, 0, offsetof(hw_vm, stays_after_fork));
  vm.struct_size = offsetof(hw_vm, stays_after_fork);
  vm.abi_version = HW_ABI_VERSION;
  vm.size = size_of, vm.scan = scan, vm.thread_roots = roots_of;
  EXPECT(hw_heap_new(&vm, NULL, &old) == HW_OK && hw_heap_free(old) == HW_OK);
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  misuse();
  for (size_t i = 1; hw_plan_at(i); i++) {
    if (strcmp(hw_plan_at(i), "pageprotect") == 0) continue;
    under_load(hw_plan_at(i));
  }
  EXPECT(pthread_atfork(before, parent, child) == 0);
  for (size_t i = 1; hw_plan_at(i); i++) {
    if (strcmp(hw_plan_at(i), "pageprotect") == 0) continue;
    with_handlers(hw_plan_at(i));
  }
  printf("%d failures, %d broken heaps\n", failures, (int)bad);
  return failures != 0 || bad != 0;
}

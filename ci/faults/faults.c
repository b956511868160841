// What may go wrong around a collector: signals, forks, stops, limits, short-lived threads, libraries that come and go. Every
// mode keeps lists whose cells say what they are, looks at them all the time, and ends with 1 if one is not what it was; else it
// prints one line with figures.
//
//   faults storm SECONDS | churn SECONDS | forks N | limit MEGABYTES | vlimit | threads N | cancel N |
//          libraries N FILE | forks-while-loading N FILE
#define GC_THREADS
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <gc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LISTS 64
#define MAGIC 0x9e3779b97f4a7c15UL

struct cell {
  struct cell *next;
  unsigned long is; // MAGIC * (key + place)
  unsigned long rest[];
};

struct lists {
  struct cell *first[LISTS];
  unsigned long key[LISTS];
  unsigned lengths[LISTS];
  unsigned long random;
};

static atomic_int ending;
static atomic_ulong made;

static void fail(const char *what) {
  printf("FAILED: %s\n", what);
  fflush(stdout);
  _exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static unsigned long next_random(struct lists *l) {
  l->random ^= l->random << 13;
  l->random ^= l->random >> 7;
  l->random ^= l->random << 17;
  return l->random;
}

static void look(struct lists *l, int at) {
  unsigned place = 0;
  for (struct cell *c = l->first[at]; c; c = c->next, place++)
    if (c->is != MAGIC * (l->key[at] + place)) fail("a cell is not what it was");
  if (place != l->lengths[at]) fail("a list has another length");
}

// Looks at a list, and puts a new one in its place. False if there is no memory: then the list is empty.
static int turn(struct lists *l) {
  int at = next_random(l) % LISTS;
  look(l, at);
  unsigned long key = next_random(l);
  unsigned length = next_random(l) % 60;
  struct cell *first = NULL;
  l->first[at] = NULL;
  l->lengths[at] = 0;
  for (unsigned place = length; place-- > 0;) {
    struct cell *c = GC_malloc(sizeof(struct cell) + next_random(l) % 200);
    if (!c) return 0;
    c->is = MAGIC * (key + place);
    c->next = first;
    first = c;
  }
  l->key[at] = key;
  l->lengths[at] = length;
  l->first[at] = first;
  atomic_fetch_add_explicit(&made, length, memory_order_relaxed);
  return 1;
}

static void start_lists(struct lists *l, unsigned long seed) {
  memset(l, 0, sizeof *l);
  l->random = seed * MAGIC | 1;
}

static void *churn(void *seed) {
  struct lists l;
  start_lists(&l, (unsigned long)seed);
  while (!ending)
    if (!turn(&l)) fail("no memory");
  for (int at = 0; at < LISTS; at++) look(&l, at);
  return NULL;
}

static void start_churning(pthread_t *threads, int n) {
  for (long i = 0; i < n; i++)
    if (GC_pthread_create(&threads[i], NULL, churn, (void *)(i + 1))) fail("no thread");
}

static void end_churning(pthread_t *threads, int n) {
  ending = 1;
  for (int i = 0; i < n; i++) GC_pthread_join(threads[i], NULL);
}

static atomic_ulong signals;

static void on_signal(int number) {
  char work[256];
  memset(work, number, sizeof work);
  atomic_fetch_add_explicit(&signals, work[17] == number, memory_order_relaxed);
}

static void storm(double seconds) {
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigaction(SIGUSR1, &action, NULL);
  sigaction(SIGUSR2, &action, NULL);
  sigaction(SIGALRM, &action, NULL);
  pthread_t threads[4];
  start_churning(threads, 4);
  timer_t timer;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
  struct itimerspec each = {{0, 1000000}, {0, 1000000}};
  timer_create(CLOCK_MONOTONIC, &event, &timer);
  timer_settime(timer, 0, &each, NULL);
  double end = now() + seconds;
  for (int i = 0; now() < end; i++) {
    pthread_kill(threads[i % 4], i & 4 ? SIGUSR1 : SIGUSR2);
    nanosleep(&(struct timespec){0, 900000}, NULL);
    if (i % 100 == 0) GC_gcollect();
  }
  timer_delete(timer);
  end_churning(threads, 4);
  if (signals < seconds * 500) fail("hardly a signal arrived");
  printf("%lu signals in %.0f s, %lu cells, %lu collections\n", signals, seconds, made, (unsigned long)GC_get_gc_no());
}

static void forks(int n) {
  pthread_t threads[3];
  start_churning(threads, 3);
  double begin = now();
  for (int i = 0; i < n; i++) {
    pid_t child = fork();
    if (child < 0) fail("no fork");
    if (child == 0) {
      // A child that hangs is killed, which the parent sees.
      signal(SIGALRM, SIG_DFL);
      alarm(20);
      struct lists l;
      start_lists(&l, i + 1);
      for (int k = 0; k < 100; k++)
        if (!turn(&l)) _exit(2);
      GC_gcollect();
      if (i % 10 == 0) {
        pid_t grandchild = fork();
        if (grandchild == 0) {
          alarm(20);
          GC_gcollect();
          for (int at = 0; at < LISTS; at++) look(&l, at);
          _exit(0);
        }
        int status;
        if (waitpid(grandchild, &status, 0) != grandchild || status) _exit(3);
      }
      for (int at = 0; at < LISTS; at++) look(&l, at);
      _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status) {
      printf("child %d: status %x\n", i, status);
      fail("a child did not end well");
    }
  }
  double took = now() - begin;
  end_churning(threads, 3);
  printf("%d forks (and %d of children) in %.1f s, none hung, %lu collections\n", n, (n + 9) / 10, took, (unsigned long)GC_get_gc_no());
}

static int asked;

static void *none(size_t bytes) {
  (void)bytes;
  asked++;
  return NULL;
}

static struct cell *kept;

// Keeps so many megabytes alive under a limit of 1.2 times that, and allocates at it.
static void limit(unsigned megabytes) {
  GC_set_oom_fn(none);
  GC_set_max_heap_size((size_t)megabytes * 1024 * 1024 / 10 * 12);
  unsigned long n = 0, bytes = 0;
  for (; bytes < megabytes * 1000000UL; n++) {
    struct cell *c = GC_malloc(100);
    if (!c) fail("the limit came before what is to live");
    bytes += GC_size(c);
    c->is = MAGIC * n;
    c->next = kept;
    kept = c;
  }
  unsigned long before = GC_get_gc_no(), given = 0, refused = 0;
  for (int i = 0; i < 2000000; i++) {
    char *c = GC_malloc(100);
    if (c) given++, c[0] = 1;
    else refused++;
  }
  unsigned long at_limit = GC_get_gc_no() - before, place = n;
  for (struct cell *c = kept; c; c = c->next)
    if (c->is != MAGIC * --place) fail("a cell is not what it was");
  if (place) fail("cells are missing");
  if (refused) fail("memory that was free was refused");
  // Beyond the limit: null, again and again, and all is well when something was let go.
  struct cell *more = NULL;
  for (int i = 0; i < 10000000 && !asked; i++) {
    struct cell *c = GC_malloc(1000);
    if (!c) break;
    c->next = more;
    more = c;
  }
  if (!asked) fail("nobody was asked at the limit");
  more = NULL;
  GC_gcollect();
  for (int i = 0; i < 100000; i++)
    if (!GC_malloc(100)) fail("no memory, though there is");
  printf("%lu MB live, limit 1.2 times that: %lu allocations, %lu collections; asked %d times beyond it\n", bytes / 1000000, given,
         at_limit, asked);
}

// Takes memory until there is none.
static void vlimit(void) {
  GC_set_oom_fn(none);
  unsigned long bytes = 0;
  for (int i = 0; bytes < 20000000000UL; i++) {
    size_t wanted = i % 10 ? 1000 : 300000;
    struct cell *c = GC_malloc(wanted);
    if (!c) break;
    c->is = MAGIC * i;
    c->next = kept;
    kept = c;
    bytes += wanted;
  }
  if (!asked) fail("nobody was asked");
  for (struct cell *c = kept; c && c->next; c = c->next)
    if (c->is - c->next->is != MAGIC) fail("a cell is not what it was");
  kept = NULL;
  GC_gcollect();
  if (!GC_malloc(1000000 < bytes / 4 ? 1000000 : 1000)) fail("no memory, though all was let go");
  printf("%.1f MB, then null, and memory again when all was let go\n", bytes / 1e6);
}

static unsigned long resident(void) {
  unsigned long pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (!f || fscanf(f, "%*u %lu", &pages) != 1) fail("no statm");
  fclose(f);
  return pages * 4096;
}

static void *briefly(void *kind) {
  struct lists l;
  start_lists(&l, (unsigned long)kind + 1);
  for (int i = 0; i < 30; i++)
    if (!turn(&l)) fail("no memory");
  for (int at = 0; at < LISTS; at++) look(&l, at);
  if ((unsigned long)kind % 4 == 1) GC_pthread_exit(NULL);
  return NULL;
}

static void *by_itself(void *kind) {
  struct GC_stack_base base;
  GC_get_stack_base(&base);
  if (GC_register_my_thread(&base) != GC_SUCCESS) fail("a thread could not register");
  briefly((void *)0);
  // Some do not say goodbye.
  if ((unsigned long)kind % 8 == 2) GC_unregister_my_thread();
  return NULL;
}

static void *collects(void *unused) {
  while (!ending) {
    GC_gcollect();
    usleep(2000);
  }
  return unused;
}

#undef pthread_create
#undef pthread_join
#undef pthread_detach

static atomic_int detached;

static void *detached_one(void *kind) {
  briefly((void *)0);
  detached--;
  return kind;
}

static void threads(long n) {
  pthread_t collector, t[8];
  GC_pthread_create(&collector, NULL, collects, NULL);
  double begin = now();
  unsigned long after_some = 0;
  for (long i = 0; i < n; i += 8) {
    for (long k = 0; k < 8; k++) {
      long kind = i + k;
      if (k % 4 == 2) {
        if (pthread_create(&t[k], NULL, by_itself, (void *)kind)) fail("no thread");
      } else if (k % 4 == 3) {
        detached++;
        if (GC_pthread_create(&t[k], NULL, detached_one, (void *)kind)) fail("no thread");
        GC_pthread_detach(t[k]);
      } else if (GC_pthread_create(&t[k], NULL, briefly, (void *)k)) {
        fail("no thread");
      }
    }
    for (long k = 0; k < 8; k++) {
      if (k % 4 == 2) pthread_join(t[k], NULL);
      else if (k % 4 != 3) GC_pthread_join(t[k], NULL);
    }
    while (detached > 16) usleep(100);
    if (i / 8 == n / 16) after_some = resident();
  }
  double took = now() - begin;
  while (detached > 0) usleep(100);
  ending = 1;
  GC_pthread_join(collector, NULL);
  double grown = ((double)resident() - (double)after_some) / 1e6;
  if (grown > 8) fail("memory grows with each thread");
  printf("%ld threads, %.0f a second, %+.1f MB in the second half, %lu collections\n", n, n / took, grown, (unsigned long)GC_get_gc_no());
}

static void *until_cancelled(void *kind) {
  struct lists l;
  start_lists(&l, (unsigned long)kind + 1);
  for (;;) {
    if (!turn(&l)) fail("no memory");
    usleep(50);
  }
  return NULL;
}

// Threads that are cancelled in a system call, wherever the collector has stopped them.
static void cancel(int n) {
  pthread_t collector, t[4];
  GC_pthread_create(&collector, NULL, collects, NULL);
  for (int i = 0; i < n; i += 4) {
    for (long k = 0; k < 4; k++)
      if (GC_pthread_create(&t[k], NULL, until_cancelled, (void *)k)) fail("no thread");
    usleep(500);
    for (int k = 0; k < 4; k++) GC_pthread_cancel(t[k]);
    for (int k = 0; k < 4; k++) {
      void *result;
      GC_pthread_join(t[k], &result);
      if (result != PTHREAD_CANCELED) fail("a thread ended otherwise");
    }
  }
  ending = 1;
  GC_pthread_join(collector, NULL);
  printf("%d threads cancelled, %lu collections\n", n, (unsigned long)GC_get_gc_no());
}

static void *loads(void *file) {
  while (!ending) {
    void *library = dlopen(file, RTLD_NOW);
    if (!library || dlclose(library)) fail("a library");
  }
  return NULL;
}

static void forks_while_loading(int n, const char *file) {
  pthread_t loader;
  if (GC_pthread_create(&loader, NULL, loads, (void *)file)) fail("no thread");
  forks(n);
  GC_pthread_join(loader, NULL);
}

static void libraries(int n, const char *file) {
  pthread_t t[2];
  start_churning(t, 2);
  struct lists l;
  start_lists(&l, 77);
  for (int i = 0; i < n; i++) {
    void *library = i & 1 ? GC_dlopen(file, RTLD_NOW) : dlopen(file, RTLD_NOW);
    if (!library) fail(dlerror());
    struct cell **roots = dlsym(library, "roots");
    if (!roots) fail("no roots");
    for (int k = 0; k < 100; k++) {
      struct cell *c = GC_malloc(64);
      c->is = MAGIC * (k + i);
      c->next = NULL;
      roots[k] = c;
    }
    for (int k = 0; k < 5; k++) turn(&l);
    if (i % 4 == 0) GC_gcollect();
    for (int k = 0; k < 100; k++)
      if (roots[k]->is != MAGIC * (k + i)) fail("what a library's data referred to is gone");
    if (dlclose(library)) fail("it would not close");
  }
  end_churning(t, 2);
  printf("%d libraries opened and closed, %lu collections\n", n, (unsigned long)GC_get_gc_no());
}

int main(int count, char **words) {
  const char *mode = count > 1 ? words[1] : "";
  long n = count > 2 ? atol(words[2]) : 0;
  GC_INIT();
  GC_allow_register_threads();
  if (!strcmp(mode, "storm")) storm(n);
  else if (!strcmp(mode, "forks")) forks(n);
  else if (!strcmp(mode, "limit")) limit(n);
  else if (!strcmp(mode, "vlimit")) vlimit();
  else if (!strcmp(mode, "threads")) threads(n);
  else if (!strcmp(mode, "libraries")) libraries(n, words[3]);
  else if (!strcmp(mode, "cancel")) cancel(n);
  else if (!strcmp(mode, "forks-while-loading")) forks_while_loading(n, words[3]);
  else if (!strcmp(mode, "churn")) {
    pthread_t t[3];
    start_churning(t, 3);
    double end = now() + n;
    while (now() < end) usleep(10000);
    end_churning(t, 3);
    printf("%lu cells, %lu collections\n", made, (unsigned long)GC_get_gc_no());
  } else {
    fprintf(stderr, "usage: faults storm SECONDS | churn SECONDS | forks N | limit MEGABYTES | vlimit | threads N | cancel N | libraries N FILE | forks-while-loading N FILE\n");
    return 2;
  }
  return 0;
}

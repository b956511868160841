/* Heaps that are watched: by the environment's instruments, and by those that the program asks for; wrong uses. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "expect.h"

typedef struct { size_t header; hw_object next; } Node;
static size_t size_of(void *user, hw_object o) { (void)user; return hw_size(o, sizeof(Node)); }
static void scan(void *user, hw_object o, hw_slot_visitor *v) { (void)user; hw_visit(v, &((Node *)o)->next, 1); }
static hw_object list;
static void roots(void *user, hw_root_visitor *v) { (void)user; hw_root(v, &list, 1); }
static void roots_of(void *user, void *thread, hw_root_visitor *v) { (void)user; (void)thread; (void)v; }

static void push(hw_mutator *m) {
  hw_object node = NULL;
  EXPECT(hw_alloc(m, sizeof(Node), &node) == HW_OK);
  hw_write(m, node, &((Node *)node)->next, list);
  list = node;
}

/* Asks a heap that listens; what it answers, or nothing. */
static const char *ask(const char *path, const char *request) {
  static char answer[1 << 16];
  struct sockaddr_un address;
  size_t got = 0;
  ssize_t n;
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  memset(&address, 0, sizeof address);
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  answer[0] = 0;
  if (connect(s, (struct sockaddr *)&address, sizeof address) == 0 && write(s, request, strlen(request)) > 0)
    while (!memchr(answer, '\n', got) && (n = read(s, answer + got, sizeof answer - 1 - got)) > 0) got += (size_t)n;
  answer[got] = 0;
  close(s);
  return answer;
}

static pid_t child_of(hw_heap *heap, const char *socket) {
  hw_fork *ready = NULL;
  EXPECT(hw_heap_prepare_fork(heap, &ready) == HW_OK);
  pid_t pid = fork();
  if (pid == 0) {
    hw_mutator *m = NULL;
    failures = 0;
    EXPECT(hw_fork_child(ready) == HW_OK);
    EXPECT(hw_attach(heap, NULL, &m) == HW_OK);
    push(m);
    EXPECT(hw_collect(m) == HW_OK);
    EXPECT(hw_detach(m) == HW_OK);
    /* Only the parent answers. */
    EXPECT(strstr(ask(socket, "status\n"), "\"type\":\"status\"") != NULL);
    EXPECT(hw_heap_free(heap) == HW_OK);
    EXPECT(access(socket, F_OK) == 0);
    fflush(stdout);
    _exit(failures != 0);
  }
  EXPECT(hw_fork_parent(ready) == HW_OK);
  return pid;
}

/* log, recording, socket, samples, dump */
int main(int count, char **files) {
  hw_vm vm = {.struct_size = sizeof vm, .abi_version = HW_ABI_VERSION, .size = size_of, .scan = scan, .thread_roots = roots_of, .roots = roots};
  hw_heap *heap = NULL, *second = NULL, *third = NULL;
  hw_mutator *m = NULL;
  hw_option option;
  size_t n = 0;
  char text[4096];
  int status = 1;
  hw_options *o = hw_options_new();
  if (count != 6) return 2;
  setvbuf(stdout, NULL, _IONBF, 0);

  while (hw_instrument_at(n, &option)) {
    EXPECT(strlen(option.name) > 0 && strlen(option.values) > 0 && strlen(option.meaning) > 0);
    n++;
  }
  EXPECT(n == 5);
  EXPECT(hw_options_watch(o, "telescope", "1") == HW_BAD_OPTION);
  EXPECT(strstr(hw_last_error(), "record") != NULL);
  EXPECT(hw_options_watch(o, "record", "") == HW_BAD_OPTION);
  EXPECT(hw_options_watch(o, "dump", "exit=a.hprof") == HW_BAD_OPTION);
  EXPECT(strstr(hw_last_error(), "oom=FILE") != NULL);
  EXPECT(hw_options_watch(o, "profile", "a,rate=much") == HW_BAD_OPTION);
  EXPECT(hw_options_watch(o, NULL, "a") == HW_INVALID);
  EXPECT(hw_options_watch(NULL, "log", "a") == HW_INVALID);
  EXPECT(hw_options_watch(o, "record", "/nonexistent/file") == HW_OK);
  EXPECT(hw_heap_new(&vm, o, &heap) == HW_SYSTEM && heap == NULL);
  EXPECT(strstr(hw_last_error(), "record: /nonexistent/file") != NULL);
  /* A heap that is not made leaves no socket behind. */
  EXPECT(hw_options_watch(o, "record", files[2]) == HW_OK);
  EXPECT(hw_options_watch(o, "listen", files[3]) == HW_OK);
  EXPECT(hw_options_set(o, "max", "1m") == HW_OK && hw_options_set(o, "soft", "2m") == HW_OK);
  EXPECT(hw_heap_new(&vm, o, &heap) != HW_OK);
  EXPECT(access(files[3], F_OK) != 0);
  EXPECT(hw_options_set(o, "soft", "0") == HW_OK && hw_options_set(o, "max", "2m") == HW_OK);
  remove(files[2]);

  snprintf(text, sizeof text, "gc,json=%s", files[1]);
  EXPECT(hw_options_watch(o, "log", text) == HW_OK);
  snprintf(text, sizeof text, "%s,rate=4k", files[4]);
  EXPECT(hw_options_watch(o, "profile", text) == HW_OK);
  snprintf(text, sizeof text, "oom=%s", files[5]);
  EXPECT(hw_options_watch(o, "dump", text) == HW_OK);
  EXPECT(hw_heap_new(&vm, o, &heap) == HW_OK);
  EXPECT(hw_heap_new(&vm, o, &second) == HW_SYSTEM);
  EXPECT(strstr(hw_last_error(), files[3]) != NULL);
  EXPECT(hw_attach(heap, NULL, &m) == HW_OK);
  for (int i = 0; i < 1000; i++) push(m);
  EXPECT(hw_collect(m) == HW_OK);
  EXPECT(strstr(ask(files[3], "status\n"), "\"collections\":1,") != NULL);
  EXPECT(strstr(ask(files[3], "map\n"), "\"when\":\"now\"") != NULL);
  EXPECT(strstr(ask(files[3], "collect\n"), "\"type\":\"collect\"") != NULL);
  hw_poll(m);
  EXPECT(strstr(ask(files[3], "status\n"), "\"collections\":2,") != NULL);
  hw_object node = NULL;
  hw_status said;
  do {
    said = hw_alloc(m, sizeof(Node), &node);
    if (said == HW_OK) {
      hw_write(m, node, &((Node *)node)->next, list);
      list = node;
    }
  } while (said == HW_OK);
  EXPECT(said == HW_OUT_OF_MEMORY && access(files[5], F_OK) == 0);
  list = NULL;
  EXPECT(hw_collect(m) == HW_OK);
  for (int i = 0; i < 10; i++) push(m);
  EXPECT(hw_detach(m) == HW_OK);
  pid_t child = child_of(heap, files[3]);
  EXPECT(waitpid(child, &status, 0) == child && status == 0);
  EXPECT(strstr(ask(files[3], "status\n"), "\"type\":\"status\"") != NULL);
  EXPECT(hw_heap_free(heap) == HW_OK);
  EXPECT(access(files[3], F_OK) != 0);

  /* The environment's are for one heap at a time. */
  EXPECT(hw_options_from_environment(o) == HW_OK);
  EXPECT(hw_heap_new(&vm, o, &heap) == HW_OK && hw_heap_new(&vm, o, &second) == HW_OK && hw_heap_new(&vm, o, &third) == HW_OK);
  EXPECT(hw_heap_free(third) == HW_OK);
  EXPECT(strstr(ask(getenv("HEAPWRIGHT_LISTEN"), "status\n"), "\"type\":\"status\"") != NULL);
  EXPECT(hw_heap_free(second) == HW_OK);
  EXPECT(access(getenv("HEAPWRIGHT_LISTEN"), F_OK) == 0);
  EXPECT(hw_heap_free(heap) == HW_OK);
  EXPECT(access(getenv("HEAPWRIGHT_LISTEN"), F_OK) != 0);
  EXPECT(hw_heap_new(&vm, o, &heap) == HW_OK && access(getenv("HEAPWRIGHT_LISTEN"), F_OK) == 0);
  EXPECT(hw_heap_free(heap) == HW_OK);
  setenv("HEAPWRIGHT_DUMP", "exit=a.hprof", 1);
  EXPECT(hw_options_from_environment(o) == HW_BAD_OPTION);
  hw_options_free(o);
  printf("%d failures\n", failures);
  return failures != 0;
}

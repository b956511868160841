/* A heap with a list of nodes and their leaves, dumped in each format, when asked and when it is full; wrong uses. */
#include <stdio.h>
#include <string.h>
#include "expect.h"

enum { NODE = 1, LEAF = 2 };
typedef struct { size_t header, type; hw_object next, leaf; } Node;
typedef struct { size_t header, type; char text[84]; } Leaf;

static size_t type(hw_object o) { return ((Node *)o)->type; }
static size_t size_of(void *user, hw_object o) { (void)user; return hw_size(o, type(o) == LEAF ? sizeof(Leaf) : sizeof(Node)); }
static void scan(void *user, hw_object o, hw_slot_visitor *v) {
  (void)user;
  if (type(o) == NODE) hw_visit(v, &((Node *)o)->next, 2);
}
static hw_object list;
static void roots(void *user, hw_root_visitor *v) { (void)user; hw_root(v, &list, 1); }
static void roots_of(void *user, void *thread, hw_root_visitor *v) { (void)user; (void)thread; (void)v; }
static uint32_t type_of(void *user, hw_object o) { (void)user; return (uint32_t)type(o); }
static const char *type_name(void *user, uint32_t t) { (void)user; return t == LEAF ? "leaf \"quoted\"" : "node"; }

static int push(hw_mutator *m) {
  hw_object node = NULL, leaf = NULL;
  if (hw_alloc(m, sizeof(Node), &node) != HW_OK) return 0;
  ((Node *)node)->type = NODE;
  hw_write(m, node, &((Node *)node)->next, list);
  list = node;
  if (hw_alloc(m, sizeof(Leaf), &leaf) != HW_OK) return 0;
  ((Leaf *)leaf)->type = LEAF;
  hw_write(m, list, &((Node *)list)->leaf, leaf);
  return 1;
}

int main(int count, char **arguments) {
  hw_vm vm = {.struct_size = sizeof vm, .abi_version = HW_ABI_VERSION, .size = size_of, .scan = scan, .thread_roots = roots_of, .roots = roots, .type_of = type_of, .type_name = type_name};
  hw_heap *heap = NULL;
  hw_mutator *m = NULL;
  hw_options *o = hw_options_new();
  if (count != 4) return 2;
  EXPECT(hw_options_set(o, "max", "2m") == HW_OK);
  EXPECT(hw_heap_new(&vm, o, &heap) == HW_OK);
  EXPECT(hw_attach(heap, NULL, &m) == HW_OK);
  for (int i = 0; i < 100; i++) EXPECT(push(m));

  EXPECT(hw_heap_dump(m, arguments[1], HW_DUMP_BY_NAME) == HW_OK);
  EXPECT(hw_heap_dump(m, arguments[2], HW_DUMP_HEAPSNAPSHOT) == HW_OK);
  EXPECT(hw_heap_dump(m, arguments[2], HW_DUMP_BY_NAME) == HW_INVALID);
  EXPECT(strstr(hw_last_error(), ".hprof") != NULL);
  EXPECT(hw_heap_dump(m, arguments[1], 3) == HW_INVALID);
  EXPECT(hw_heap_dump(NULL, arguments[1], HW_DUMP_HPROF) == HW_INVALID);
  EXPECT(hw_heap_dump(m, NULL, HW_DUMP_HPROF) == HW_INVALID);
  EXPECT(hw_heap_dump(m, "/no/such/folder/x.hprof", HW_DUMP_HPROF) == HW_SYSTEM);

  EXPECT(hw_heap_dump_on_out_of_memory(heap, "x.text") == HW_INVALID);
  EXPECT(hw_heap_dump_on_out_of_memory(NULL, arguments[3]) == HW_INVALID);
  EXPECT(hw_heap_dump_on_out_of_memory(heap, NULL) == HW_INVALID);
  EXPECT(hw_heap_dump_on_out_of_memory(heap, arguments[3]) == HW_OK);
  EXPECT(hw_heap_dump_on_out_of_memory(heap, arguments[3]) == HW_INVALID);
  while (push(m)) { }
  int nodes = 0;
  for (hw_object n = list; n != NULL; n = ((Node *)n)->next) nodes++;
  list = NULL;
  EXPECT(push(m));
  hw_detach(m);
  hw_heap_free(heap);
  hw_options_free(o);
  printf("%d failures, %d nodes\n", failures, nodes);
  return 0;
}

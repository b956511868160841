/*
 * A small Lisp on a Heapwright heap: numbers, symbols, pairs and closures; two heaps of different plans side by side; a weak map
 * from closures to their names. docs/c-api.md explains it.
 *
 *     cc lisp.c $(pkg-config --cflags --libs heapwright) -o lisp && ./lisp
 */
#include <ctype.h>
#include <heapwright.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- objects ------------------------------------------------------------------------------------------------------------------- */

enum type { NUMBER = 1, SYMBOL, PAIR, CLOSURE, PRIMITIVE };

/* Every object: the header, which has the type, and two words. */
struct object {
  uintptr_t header;
  union { hw_object ref; intptr_t number; char text[8]; } a;
  hw_object b;
};
#define OBJECT(o) ((struct object *)(o))
#define A(o) (OBJECT(o)->a.ref)
#define B(o) (OBJECT(o)->b)
#define TYPE(o) ((enum type)hw_header(o))
#define PUSH(l, v) hw_push_root((l)->mutator, &(v))
#define POP(l, n) hw_pop_roots((l)->mutator, n)

static size_t object_size(void *user, hw_object o) {
  return (void)user, (void)o, sizeof(struct object);
}

static void object_scan(void *user, hw_object o, struct hw_visitor *visitor) {
  (void)user;
  switch (TYPE(o)) {
    case PAIR: /* first, rest */
    case CLOSURE: /* (parameters body), environment */
      hw_visit_slots(visitor, &A(o), 2);
      break;
    case SYMBOL: /* a: up to 8 letters; b: the next symbol */
      hw_visit_slot(visitor, &B(o));
      break;
    default: /* numbers and primitives have no references; a new object has no type yet */
      break;
  }
}

/* ---- an interpreter ------------------------------------------------------------------------------------------------------------ */

struct lisp {
  struct hw_heap *heap;
  struct hw_mutator *mutator;
  struct hw_weak_map *names; /* closure -> symbol */
  hw_object symbols, globals; /* roots */
  const char *at; /* what is read */
};

static void fatal(const char *what, const char *why) {
  fprintf(stderr, "lisp: %s %.60s\n", what, why);
  exit(1);
}

static void check(enum hw_status status, const char *what) {
  if (status != HW_OK) fatal(what, hw_last_error());
}

/* A new object; what it gets are variables that the caller has pushed, for they may move. */
static hw_object make(struct lisp *l, enum type type, hw_object *a, hw_object *b) {
  hw_object o = hw_alloc(l->mutator, sizeof(struct object));
  if (!o) fatal("alloc:", hw_last_error());
  hw_set_header(o, type);
  if (a) hw_write(l->mutator, o, &A(o), *a);
  if (b) hw_write(l->mutator, o, &B(o), *b);
  return o;
}

static hw_object cons(struct lisp *l, hw_object a, hw_object b) {
  hw_object pair;
  PUSH(l, a), PUSH(l, b);
  pair = make(l, PAIR, &a, &b);
  POP(l, 2);
  return pair;
}

static hw_object number(struct lisp *l, intptr_t n) {
  hw_object o = make(l, NUMBER, NULL, NULL);
  OBJECT(o)->a.number = n;
  return o;
}

static hw_object symbol(struct lisp *l, const char *text, size_t length) {
  char name[8] = {0};
  hw_object s;
  memcpy(name, text, length < 8 ? length : 8);
  for (s = l->symbols; s; s = B(s))
    if (memcmp(OBJECT(s)->a.text, name, 8) == 0) return s;
  s = make(l, SYMBOL, NULL, &l->symbols);
  memcpy(OBJECT(s)->a.text, name, 8);
  return l->symbols = s;
}

static int is(hw_object o, const char *name) { return o && TYPE(o) == SYMBOL && strncmp(OBJECT(o)->a.text, name, 8) == 0; }

static void skip(struct lisp *l) { for (; isspace((unsigned char)*l->at); l->at++) {} }

static hw_object read_form(struct lisp *l) {
  const char *begin;
  skip(l);
  if (*l->at == '(') {
    hw_object first = NULL, last = NULL, item = NULL;
    PUSH(l, first), PUSH(l, last), PUSH(l, item);
    for (l->at++, skip(l); *l->at != ')'; skip(l)) {
      item = read_form(l);
      item = cons(l, item, NULL);
      if (last) hw_write(l->mutator, last, &B(last), item);
      else first = item;
      last = item;
    }
    l->at++;
    POP(l, 3);
    return first;
  }
  begin = l->at;
  while (*l->at && !isspace((unsigned char)*l->at) && *l->at != '(' && *l->at != ')') l->at++;
  if (l->at == begin) fatal("a form is missing", "");
  if (isdigit((unsigned char)*begin)) return number(l, strtol(begin, NULL, 10));
  return symbol(l, begin, (size_t)(l->at - begin));
}

static void print(struct lisp *l, hw_object o) {
  if (!o) { printf("()"); return; }
  switch (TYPE(o)) {
    case NUMBER: printf("%ld", (long)OBJECT(o)->a.number); break;
    case SYMBOL: printf("%.8s", OBJECT(o)->a.text); break;
    case PAIR:
      printf("(");
      for (; o; o = B(o)) print(l, A(o)), printf(B(o) ? " " : ")");
      break;
    case CLOSURE: {
      hw_object name = hw_weak_map_get(l->mutator, l->names, o);
      printf("#<closure ");
      if (name) print(l, name); else printf("without a name");
      printf(">");
      break;
    }
    case PRIMITIVE: printf("#<primitive>"); break;
  }
}

static hw_object find(hw_object environment, hw_object name) {
  for (; environment; environment = B(environment))
    if (A(A(environment)) == name) return A(environment);
  return NULL;
}

static hw_object eval(struct lisp *l, hw_object e, hw_object env);

static hw_object eval_list(struct lisp *l, hw_object list, hw_object env) {
  hw_object value;
  if (!list) return NULL;
  PUSH(l, list), PUSH(l, env);
  value = eval(l, A(list), env);
  PUSH(l, value);
  list = eval_list(l, B(list), env);
  value = cons(l, value, list);
  POP(l, 3);
  return value;
}

static hw_object apply_primitive(struct lisp *l, intptr_t which, hw_object args) {
  hw_object x = A(args), y = B(args) ? A(B(args)) : NULL;
  switch (which) {
    case '+': return number(l, OBJECT(x)->a.number + OBJECT(y)->a.number);
    case '-': return number(l, OBJECT(x)->a.number - OBJECT(y)->a.number);
    case '<': return OBJECT(x)->a.number < OBJECT(y)->a.number ? x : NULL;
    case 'c': return cons(l, x, y);
    case 'a': return A(x);
    default: return B(x);
  }
}

static hw_object eval(struct lisp *l, hw_object e, hw_object env) {
  hw_object f = NULL, args = NULL, result = NULL;
  if (!e || TYPE(e) == NUMBER) return e;
  if (TYPE(e) == SYMBOL) {
    hw_object binding = find(env, e);
    if (!binding) binding = find(l->globals, e);
    if (!binding) fatal("unbound:", "a symbol");
    return B(binding);
  }
  if (is(A(e), "quote")) return A(B(e));
  PUSH(l, e), PUSH(l, env), PUSH(l, f), PUSH(l, args), PUSH(l, result);
  if (is(A(e), "if")) {
    result = eval(l, A(B(e)), env) ? eval(l, A(B(B(e))), env) : eval(l, A(B(B(B(e)))), env);
  } else if (is(A(e), "lambda")) {
    f = B(e);
    result = make(l, CLOSURE, &f, &env);
  } else if (is(A(e), "define")) {
    result = eval(l, A(B(B(e))), env);
    if (result && TYPE(result) == CLOSURE) check(hw_weak_map_insert(l->mutator, l->names, result, A(B(e))), "name");
    f = cons(l, A(B(e)), result);
    l->globals = cons(l, f, l->globals);
  } else {
    f = eval(l, A(e), env);
    args = eval_list(l, B(e), env);
    if (f && TYPE(f) == PRIMITIVE) {
      result = apply_primitive(l, OBJECT(f)->a.number, args);
    } else if (f && TYPE(f) == CLOSURE) {
      env = B(f);
      for (result = A(A(f)); result && args; result = B(result), args = B(args)) {
        e = cons(l, A(result), A(args));
        env = cons(l, e, env);
      }
      result = eval(l, A(B(A(f))), env);
    } else {
      fatal("not a function", "");
    }
  }
  POP(l, 5);
  return result;
}

/* ---- heaps --------------------------------------------------------------------------------------------------------------------- */

static void start(struct lisp *l, const char *plan) {
  static const char *const names[] = {"+", "-", "<", "cons", "rest", "first"};
  static const char which[] = "+-<cra";
  struct hw_options *options = NULL;
  struct hw_vm vm;
  size_t i;
  memset(l, 0, sizeof *l);
  hw_vm_init(&vm);
  vm.size = object_size;
  vm.scan = object_scan;
  check(hw_options_create(&options), "options");
  check(hw_options_set(options, "plan", plan), "plan");
  check(hw_options_set(options, "max", "8m"), "max");
  check(hw_options_set(options, "verify", "1"), "verify");
  check(hw_heap_create(&vm, options, &l->heap), "heap");
  check(hw_options_destroy(&options), "options");
  check(hw_attach(l->heap, NULL, &l->mutator), "attach");
  check(hw_weak_map_create(l->mutator, &l->names), "weak map");
  check(hw_add_root(l->heap, &l->symbols), "root");
  check(hw_add_root(l->heap, &l->globals), "root");
  for (i = 0; i < 6; i++) {
    hw_object p = make(l, PRIMITIVE, NULL, NULL), s = NULL;
    OBJECT(p)->a.number = which[i];
    PUSH(l, p), PUSH(l, s);
    s = symbol(l, names[i], strlen(names[i]));
    s = cons(l, s, p);
    l->globals = cons(l, s, l->globals);
    POP(l, 2);
  }
}

static void run(struct lisp *l, const char *plan, const char *text) {
  hw_object form;
  l->at = text;
  form = read_form(l);
  form = eval(l, form, NULL);
  printf("%-10s ", plan);
  print(l, form);
  printf("\n");
}

int main(int argc, char **argv) {
  static const char *const plans[] = {"semispace", "genimmix"};
  static const char fib[] = "(define fib (lambda (n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2))))))";
  static const char range[] = "(define range (lambda (n) (if (< 0 n) (cons n (range (- n 1))) ())))";
  char call[32];
  struct lisp lisps[2];
  int i;
  sprintf(call, "(fib %d)", argc > 1 ? atoi(argv[1]) % 100 : 20);
  for (i = 0; i < 2; i++) start(&lisps[i], plans[i]);
  for (i = 0; i < 2; i++) { /* both heaps are there all the time */
    struct lisp *l = &lisps[i];
    struct hw_usage usage;
    run(l, plans[i], fib);
    run(l, plans[i], range);
    run(l, plans[i], call);
    run(l, plans[i], "(range 12)");
    run(l, plans[i], "((lambda (f) (f 1)) (lambda (x) (cons x (cons fib ()))))");
    printf("%-10s names before: %zu\n", plans[i], hw_weak_map_count(l->names));
    l->globals = NULL; /* nothing reaches the closures any more */
    check(hw_collect(l->mutator, HW_COLLECT_FULL), "collect");
    printf("%-10s names after: %zu\n", plans[i], hw_weak_map_count(l->names));
    check(hw_get_usage(l->heap, &usage), "usage");
    printf("%-10s collected: %s\n", plans[i], usage.collections > 1 ? "more than once" : "once");
  }
  for (i = 0; i < 2; i++) {
    check(hw_weak_map_destroy(&lisps[i].names), "weak map");
    check(hw_detach(&lisps[i].mutator), "detach");
    check(hw_heap_destroy(&lisps[i].heap), "destroy");
  }
  return 0;
}

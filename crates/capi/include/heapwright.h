/* Heapwright's interface for C: garbage-collected heaps for language runtimes. docs/c-api.md is the guide.

   Functions answer with a hw_status, and hw_last_error() says more. Pointers that a function takes are null or valid; null is an error value
   wherever nothing else is said. Handles are freed once, by the function that their maker names. A library never ends the program and prints
   nothing. Functions on a hw_mutator are called by the thread that uses it; those marked as safepoints may collect, and then objects have
   moved: what was not reported as a root has to be read again. */


#ifndef HEAPWRIGHT_H
#define HEAPWRIGHT_H

/* Made by cbindgen from crates/capi/src: HEAPWRIGHT_BLESS=1 cargo test -p heapwright-capi --test header writes it anew. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A thread's handle to a heap. One thread uses it at a time. */
typedef struct hw_mutator hw_mutator;

/*
 The format of a heap dump that its file's name says: it ends in .hprof or .heapsnapshot.
 */
#define HW_DUMP_BY_NAME 0

/*
 HPROF: for Eclipse MAT, VisualVM and others.
 */
#define HW_DUMP_HPROF 1

/*
 V8's heap snapshots: for Chrome's DevTools and others.
 */
#define HW_DUMP_HEAPSNAPSHOT 2

/*
 The interface that this header describes. A program gives it in hw_vm::abi_version, and the library refuses another one.
 */
#define HW_ABI_VERSION 1

/*
 For hw_vm::flags: the heap knows which addresses are objects. It costs a write of a bit per allocation, and a call for each: the
 inline path is not used. Needed for ambiguous roots, hw_object_around, hw_is_object, hw_for_each_object and hw_census.
 */
#define HW_OBJECT_MAP 1

/*
 What a function answers. hw_last_error says more.
 */
typedef enum {
  /*
   It is done.
   */
  HW_OK = 0,
  /*
   Collecting did not make enough room. The heap is unharmed.
   */
  HW_OUT_OF_MEMORY = 1,
  /*
   A null pointer, or a value that makes no sense. Nothing was changed.
   */
  HW_INVALID = 2,
  /*
   There is no such option, or it does not take the value.
   */
  HW_BAD_OPTION = 3,
  /*
   The header that the program was compiled with is not of this library.
   */
  HW_VERSION = 4,
  /*
   The system refused: memory, addresses, a thread.
   */
  HW_SYSTEM = 5,
  /*
   The object has no pin that could be taken back.
   */
  HW_NOT_PINNED = 6,
  /*
   A handle that is not there any more: freed or detached before.
   */
  HW_GONE = 7,
  /*
   The heap was made without what this needs.
   */
  HW_UNSUPPORTED = 8,
  /*
   An error of the library's own. Please report it.
   */
  HW_INTERNAL = 9,
  /*
   Not while a collection calls: by a callback of one.
   */
  HW_IN_COLLECTION = 10,
} hw_status;

/*
 A heap that is ready for a fork: its world is stopped, and nobody but the thread that made it ready holds a lock of it. Given back by
 hw_fork_parent or hw_fork_child.
 */
typedef struct hw_fork hw_fork;

/*
 A heap. All its functions may be called by any thread. It is freed, with all its memory, when it was given to hw_heap_free and the
 last of its mutators has detached.
 */
typedef struct hw_heap hw_heap;

/*
 The options of a heap that is to be made, and the instruments that watch it. One thread at a time.
 */
typedef struct hw_options hw_options;

/*
 A weak handle to an object, for the program's own data. It may outlive its heap, and then refers to nothing.
 */
typedef struct hw_weak hw_weak;

/*
 A map from objects, by identity, to objects that live as long as their keys do, and the map. Values may refer to their keys.
 */
typedef struct hw_weak_map hw_weak_map;

/*
 An object: where it begins. Aligned to 8 bytes, to 16 with HW_OBJECT_MAP; never null. It is good until the calling thread's next
 safepoint.
 */
typedef void *hw_object;

/*
 Takes the fields of an object: call hw_visit with it.

 */
typedef struct {
  /*
   Called by hw_visit.
   */
  void (*visit)(void *context, hw_object *first, size_t count);
  /*
   For it.
   */
  void *context;
} hw_slot_visitor;

/*
 Takes roots: call hw_root, hw_root_pinned or hw_root_ambiguous with it.
 */
typedef struct {
  /*
   Called by hw_root.
   */
  void (*visit)(void *context, hw_object *first, size_t count);
  /*
   Called by hw_root_pinned.
   */
  void (*pinned)(void *context, hw_object object);
  /*
   Called by hw_root_ambiguous.
   */
  void (*ambiguous)(void *context, size_t word);
  /*
   For them.
   */
  void *context;
} hw_root_visitor;

/*
 A collection that has ended. Times in nanoseconds, sizes in bytes.
 */
typedef struct {
  /*
   1, 2, ...
   */
  uint64_t number;
  /*
   Everything was traced, not only what is young.
   */
  bool full;
  /*
   When it began, on the monotonic clock.
   */
  uint64_t start_ns;
  /*
   How long the world was stopped.
   */
  uint64_t pause_ns;
  /*
   The part of it in which threads were waited for.
   */
  uint64_t stop_ns;
  /*
   In use before it.
   */
  size_t before_bytes;
  /*
   What lives, as far as the plan knows.
   */
  size_t live_bytes;
  /*
   In use, and free memory that is kept, after it.
   */
  size_t heap_bytes;
  /*
   Copied to another place.
   */
  size_t copied_bytes;
  /*
   Threads that could take part.
   */
  size_t workers;
  /*
   Reference objects and handles that were cleared.
   */
  size_t cleared;
  /*
   Objects that became finalizable.
   */
  size_t finalizable;
  /*
   What the verifier found, with the option verify.
   */
  size_t violations;
} hw_collection;

/*
 The runtime: what the heap asks, each with the runtime's own pointer user. size, scan and thread_roots are needed, the others may be
 null. The table is copied when the heap is made.

 The rules that the heap relies on:

 1. size is what was asked for when the object was allocated, put through hw_size, from the first safepoint after that on.
 2. scan reports every field that holds a reference, each once, and nothing else.
 3. thread_roots and roots report every way in which a stopped thread can reach an object.
 4. The low eight bits of an object's first word are the heap's. Whoever writes that word keeps them, and writes it only while the
    object is new. The first word holds no reference.
 5. Every write of a reference into an object goes through hw_write, or hw_before_write.
 6. No callback allocates on the heap, or waits for a thread that does. size and scan are called by many threads at once, and read
    nothing but the object.
 */
typedef struct {
  /*
   sizeof(hw_vm): a later library takes the tables of earlier ones.
   */
  size_t struct_size;
  /*
   HW_ABI_VERSION.
   */
  uint32_t abi_version;
  /*
   HW_OBJECT_MAP, or 0.
   */
  uint32_t flags;
  /*
   The runtime's own pointer. The callbacks are called with it, by any thread.
   */
  void *user;
  /*
   Bytes of an object, 16 or more: hw_size(object, bytes).
   */
  size_t (*size)(void *user, hw_object object);
  /*
   Reports the fields of an object. Worker; in plans that mark concurrently while mutators run.
   */
  void (*scan)(void *user, hw_object object, hw_slot_visitor *visit);
  /*
   Reports the roots of one thread: thread is what it attached with. World stopped.
   */
  void (*thread_roots)(void *user, void *thread, hw_root_visitor *visit);
  /*
   Reports all other roots. World stopped.
   */
  void (*roots)(void *user, hw_root_visitor *visit);
  /*
   The number of an object's type.
   */
  uint32_t (*type_of)(void *user, hw_object object);
  /*
   What people call a type: a string that lives as long as the heap.
   */
  const char *(*type_name)(void *user, uint32_t type_);
  /*
   A collection has ended. World running again, on the thread that collected; must not allocate on the heap.
   */
  void (*collected)(void *user, const hw_collection *stats);
  /*
   With the option verify: something is wrong, in one sentence. World stopped.
   */
  void (*violation)(void *user, const char *what, hw_object object, size_t word);
  /*
   In the child of a fork: does the mutator of another thread, which was outside of the heap, stay attached? thread is what it
   attached with. Null: none does.
   */
  bool (*stays_after_fork)(void *user, void *thread);
} hw_vm;

/*
 What a heap uses, in bytes.
 */
typedef struct {
  /*
   Blocks and large objects in use.
   */
  size_t used_bytes;
  /*
   What may be in use before the heap is collected.
   */
  size_t limit_bytes;
  /*
   What lived after the last collection, as far as the plan knows.
   */
  size_t live_bytes;
  /*
   Free memory that the heap holds.
   */
  size_t idle_bytes;
  /*
   What the runtime reported by hw_external_allocated.
   */
  size_t external_bytes;
  /*
   What went back to the system so far.
   */
  size_t returned_bytes;
  /*
   Handed to mutators since the heap was made, in the units in which they take memory.
   */
  uint64_t allocated_bytes;
  /*
   Collections.
   */
  uint64_t collections;
  /*
   Those of them that traced everything.
   */
  uint64_t full_collections;
} hw_usage;

/*
 A function for each object.
 */
typedef void (*hw_object_visitor)(void *context, hw_object object);

/*
 A function for each type: its number, how many objects it has, and their bytes.
 */
typedef void (*hw_type_visitor)(void *context, uint32_t type_, size_t objects, size_t bytes);

/*
 One option, for lists. The strings live as long as the process.
 */
typedef struct {
  /*
   Its name for hw_options_set.
   */
  const char *name;
  /*
   Its default, as it would be set.
   */
  const char *value;
  /*
   What values look like.
   */
  const char *values;
  /*
   One sentence.
   */
  const char *meaning;
} hw_option;

/*
 How strongly a reference holds what it refers to: HW_SOFT, HW_WEAK or HW_PHANTOM.
 */
typedef uint32_t hw_strength;

/*
 In which order objects become finalizable that die together: HW_TOGETHER or HW_REGISTRATION.
 */
typedef uint32_t hw_finalizer_order;

/*
 The size class of a request.
 */
typedef struct {
  /*
   Bytes of a cell.
   */
  uint16_t bytes;
  /*
   The number of the class.
   */
  uint16_t number;
} hw_class;

/*
 How to allocate without a call: the first part of a mutator, for the functions in the header.
 */
typedef struct {
  /*
   Cursor and limit, where objects are allocated one after the other; null where they are in cells of size classes.
   */
  size_t *cursor;
  /*
   What a new object's first word is.
   */
  const size_t *header;
  /*
   Where the address of the runs of free cells is; null where there are none.
   */
  uint8_t *const *runs;
  /*
   Where the first run is, in bytes from there.
   */
  size_t first;
  /*
   From one run to the next, in bytes.
   */
  size_t stride;
  /*
   The class of each request, divided by 8.
   */
  const hw_class *classes;
  /*
   The largest request that needs no call; 0: each does.
   */
  size_t most;
  /*
   Not 0: the thread is to stop.
   */
  const uint32_t *interrupt;
  /*
   0: writes need no barrier.
   */
  const uint8_t *barrier;
} hw_fast_path;

/*
 Until memory is wanted: the option softrefs says when.
 */
#define HW_SOFT 0

/*
 Not at all: it is cleared before finalizers are looked for.
 */
#define HW_WEAK 1

/*
 Not at all, and it is cleared only when finalizers do not reach it any more.
 */
#define HW_PHANTOM 2

/*
 All at once, as in Java: also those that others of them reach.
 */
#define HW_TOGETHER 0

/*
 One after the other, as they were registered.
 */
#define HW_REGISTRATION 1

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Writes all objects that something keeps to a file, with their types, sizes and references, in one of the formats HW_DUMP_.... A
 safepoint; all threads are stopped until it is written. %p in the path is the process's number. The file has its name when it is whole.

 HW_INVALID for a format that there is not, HW_SYSTEM if the file cannot be written: there is none then.
 */
hw_status hw_heap_dump(hw_mutator *mutator,
                       const char *path,
                       uint32_t format);

/*
 Has the heap dumped when an allocation is about to fail for want of room, the first time: as hw_heap_dump, on the thread that
 asked. A dump that cannot be written then is not missed. Once for a heap: HW_INVALID if it was asked for already, or the path's name
 says no format.
 */
hw_status hw_heap_dump_on_out_of_memory(const hw_heap *heap,
                                        const char *path);

/*
 Makes a heap ready for a fork by the calling thread, which has no mutator of it inside (hw_outside): stops the world, as for a collection.
 Until hw_fork_parent or hw_fork_child the thread does nothing with the library but make other heaps ready, and fork. Each heap that the
 child is to use has to be made ready, all before the fork. Fit for a handler of pthread_atfork. Stored to *out; on failure that is null.

 HW_IN_COLLECTION: by a callback of a collection. The fork may go on, but its child must not use the heap.
 */
hw_status hw_heap_prepare_fork(hw_heap *heap,
                               hw_fork **out);

/*
 As hw_heap_prepare_fork, by a thread whose mutator is inside. A safepoint.
 */
hw_status hw_prepare_fork(hw_mutator *mutator, hw_fork **out);

/*
 Lets a heap that was made ready go on, in the parent, or where the fork failed. By the thread that made it ready; that is a safepoint if its
 mutator is inside. HW_GONE if it was called before.
 */
hw_status hw_fork_parent(hw_fork *fork);

/*
 Lets a heap that was made ready go on, in the child. There, the mutators of other threads are gone, unless they were outside of the heap and
 the callback stays_after_fork wants them: they may be detached, and not be used. Workers start again when there is work.
 */
hw_status hw_fork_child(hw_fork *fork);

/*
 Forks with one heap: makes it ready, calls fork() (as of unistd.h: 0 in the child, negative if it failed), and lets the heap go on. What that
 gave is stored to *pid; -1 if it was not called. A safepoint. HW_SYSTEM: it failed, and errno says why.

 As hw_prepare_fork otherwise.
 */
hw_status hw_fork_with(hw_mutator *mutator,
                       int (*fork)(void),
                       int *pid);

/*
 The interface that this library has: HW_ABI_VERSION of its own header.
 */
uint32_t hw_abi_version(void);

/*
 Makes a heap for a runtime. options may be null, for the defaults; they are copied. The heap is stored to *out; on failure that is
 null.

 HW_VERSION: the header is not this library's. HW_INVALID: a callback that is needed is null. HW_BAD_OPTION, HW_SYSTEM: options
 that do not go together, no memory for the heap, or a file or socket of an instrument that cannot be had.
 */
hw_status hw_heap_new(const hw_vm *vm,
                      const hw_options *options,
                      hw_heap **out);

/*
 Gives a heap back. HW_GONE if it was given back before.
 */
hw_status hw_heap_free(hw_heap *heap);

/*
 Tells what a heap uses.
 */
hw_status hw_heap_usage(const hw_heap *heap, hw_usage *out);

/*
 Changes the limits, in bytes; 0: none. Above the soft one the heap collects harder, the hard one it does not pass. HW_INVALID if the
 soft one is above the hard one, or that below what is in use; the old ones then stay.
 */
hw_status hw_heap_set_limits(hw_heap *heap,
                             size_t soft,
                             size_t hard);

/*
 Gives free memory back to the system, now: how many bytes. 0 also if heap is null.
 */
size_t hw_heap_release_memory(hw_heap *heap);

/*
 The runtime gave memory back that it had reported by hw_external_allocated.
 */
hw_status hw_external_freed(hw_heap *heap, size_t bytes);

/*
 Keeps an object where it is until hw_unpin was called as often. It is not kept alive.
 */
hw_status hw_pin(hw_heap *heap, hw_object o);

/*
 Takes one hw_pin back. HW_NOT_PINNED if there is none.
 */
hw_status hw_unpin(hw_heap *heap, hw_object o);

/*
 Keeps an object where it is as long as it lives.
 */
hw_status hw_pin_for_ever(hw_heap *heap, hw_object o);

/*
 The object that an address lies in; null if it lies in none, or the heap has no object map. Any bit pattern.
 */
hw_object hw_object_around(const hw_heap *heap, size_t word);

/*
 Is this the address of an object? False if the heap has no object map. Any bit pattern.
 */
bool hw_is_object(const hw_heap *heap, size_t word);

/*
 Attaches the calling thread. thread is the runtime's own, for thread_roots. The thread is inside of the heap from now on: it must reach
 safepoints, or others wait for it. The mutator is stored to *out; on failure that is null.
 */
hw_status hw_attach(hw_heap *heap,
                    void *thread,
                    hw_mutator **out);

/*
 Detaches a thread. HW_GONE if it was detached before.
 */
hw_status hw_detach(hw_mutator *mutator);

/*
 Allocates bytes of zeroed memory, at least 16. A safepoint. hw_alloc in the header does the same, mostly without a call.
 */
hw_status hw_alloc_slow(hw_mutator *mutator,
                        size_t bytes,
                        hw_object *out);

/*
 Allocates an object that never moves. As hw_alloc_slow otherwise.
 */
hw_status hw_alloc_unmoving(hw_mutator *mutator, size_t bytes, hw_object *out);

/*
 Allocates an object that lives as long as the heap, with all that it reaches, and never moves. As hw_alloc_slow otherwise.
 */
hw_status hw_alloc_immortal(hw_mutator *mutator,
                            size_t bytes,
                            hw_object *out);

/*
 Allocates an object whose address plus offset is a multiple of align, a power of two. It never moves. As hw_alloc_slow otherwise.
 */
hw_status hw_alloc_aligned(hw_mutator *mutator,
                           size_t bytes,
                           size_t align,
                           size_t offset,
                           hw_object *out);

/*
 Before a reference is written into slot of o, or with null into any number of its fields. No safepoint between this and the write.
 hw_write in the header calls it where the plan wants it.
 */
void hw_before_write(hw_mutator *mutator,
                     hw_object o,
                     hw_object *slot);

/*
 Stops here if a collection waits. hw_poll in the header calls it where that is so.
 */
void hw_poll_slow(hw_mutator *mutator);

/*
 Calls run(context) with the thread outside of the heap: collections do not wait for it. run uses no object and not this mutator.
 */
hw_status hw_outside(hw_mutator *mutator,
                     void (*run)(void *context),
                     void *context);

/*
 Collects everything now. A safepoint.
 */
hw_status hw_collect(hw_mutator *mutator);

/*
 Collects what the plan thinks is due. A safepoint.
 */
hw_status hw_collect_young(hw_mutator *mutator);

/*
 The runtime took memory elsewhere on behalf of an object: it counts towards the next collection. Not a safepoint.
 */
hw_status hw_external_allocated(hw_mutator *mutator, size_t bytes);

/*
 A number of the object that stays the same while it lives, wherever it moves. Two objects may have the same. Not a safepoint. 0 if a
 pointer is null.
 */
size_t hw_identity_hash(hw_mutator *mutator,
                        hw_object o);

/*
 Visits all objects, with the world stopped. A safepoint. Those that died since the last collection are visited, too. visit does not use
 this heap. HW_UNSUPPORTED without an object map.
 */
hw_status hw_for_each_object(hw_mutator *mutator,
                             hw_object_visitor visit,
                             void *context);

/*
 Counts all objects by type, the most bytes first. As hw_for_each_object; visit is called with the world running.
 */
hw_status hw_census(hw_mutator *mutator, hw_type_visitor visit, void *context);

/*
 The defaults. Freed by hw_options_free.
 */
hw_options *hw_options_new(void);

/*
 Frees options; null is fine. Heaps that were made with them go on.
 */
void hw_options_free(hw_options *options);

/*
 Sets an option by its name, as hw_option_at lists them: plan to genimmix, max to 64m. HW_BAD_OPTION if there is no such
 option, or it does not take the value: the message says what there is.
 */
hw_status hw_options_set(hw_options *options,
                         const char *name,
                         const char *value);

/*
 Has a heap watched by an instrument, by its name, as hw_instrument_at lists them: log on gc,phases=gc.log, record in run.jsonl. In
 names of files, %p is the number of the process. Files and sockets are opened when the heap is made; recordings and profiles end, and
 nobody listens any more, when the heap is given to hw_heap_free. HW_BAD_OPTION if there is no such instrument, or the value is wrong.
 */
hw_status hw_options_watch(hw_options *options,
                           const char *name,
                           const char *value);

/*
 Takes the options that the environment has as HEAPWRIGHT_PLAN, HEAPWRIGHT_MAX and so on, and the instruments that it has as
 HEAPWRIGHT_LOG, HEAPWRIGHT_RECORD and so on; others become the defaults. On failure all stay as they were.
 */
hw_status hw_options_from_environment(hw_options *options);

/*
 Option number index, from 0 on: false if there are not so many.
 */
bool hw_option_at(size_t index, hw_option *out);

/*
 Instrument number index, from 0 on, for hw_options_watch: false if there are not so many. Their default is to be off: an empty
 string.
 */
bool hw_instrument_at(size_t index,
                      hw_option *out);

/*
 The name of plan number index, from 0 on; null if there are not so many.
 */
const char *hw_plan_at(size_t index);

/*
 The plan that the options name. Lives as long as the process; null if options is.
 */
const char *hw_options_plan(const hw_options *options);

/*
 Makes a weak handle to an object. Not a safepoint. Freed by hw_weak_free.
 */
hw_status hw_weak_new(hw_mutator *mutator, hw_object o, hw_strength strength, hw_weak **out);

/*
 The object; null if it is dead, the handle was cleared or is a phantom one, or the heap is gone. Not a safepoint.
 */
hw_object hw_weak_get(const hw_weak *weak, hw_mutator *mutator);

/*
 Does it refer to nothing any more? Any thread. True for null.
 */
bool hw_weak_is_cleared(const hw_weak *weak);

/*
 Frees a handle; null is fine. Any thread.
 */
void hw_weak_free(hw_weak *weak);

/*
 Makes a map. Freed by hw_weak_map_free.
 */
hw_status hw_weak_map_new(hw_mutator *mutator, hw_weak_map **out);

/*
 Enters a value. The one that was there before is stored to *before, null if there was none; before may be null. Not a safepoint.
 */
hw_status hw_weak_map_set(hw_weak_map *map,
                          hw_mutator *mutator,
                          hw_object key,
                          hw_object value,
                          hw_object *before);

/*
 The value of a key; null if there is none. Not a safepoint.
 */
hw_object hw_weak_map_get(const hw_weak_map *map, hw_mutator *mutator, hw_object key);

/*
 Takes an entry out: its value, null if there was none. Not a safepoint.
 */
hw_object hw_weak_map_remove(hw_weak_map *map, hw_mutator *mutator, hw_object key);

/*
 How many entries a map has, with those whose keys died since the last collection. 0 for null. Any thread.
 */
size_t hw_weak_map_count(const hw_weak_map *map);

/*
 Frees a map; null is fine. Any thread.
 */
void hw_weak_map_free(hw_weak_map *map);

/*
 Registers a reference object: holder has a slot, slot bytes from its beginning, that does not keep alive what it refers to. scan does
 not report the slot. queued: when it is cleared, the holder is queued for hw_next_cleared. Read it by hw_read_reference. Not a
 safepoint.
 */
hw_status hw_add_reference(hw_mutator *mutator,
                           hw_object holder,
                           hw_strength strength,
                           uint32_t slot,
                           bool queued);

/*
 What a reference object refers to; null if it was cleared. Not a safepoint.
 */
hw_object hw_read_reference(hw_mutator *mutator, hw_object holder, hw_strength strength, uint32_t slot);

/*
 Takes the next reference object that was cleared and asked to be queued: true, and it is stored to *holder. Not a safepoint.
 */
bool hw_next_cleared(hw_mutator *mutator,
                     hw_object *holder);

/*
 Registers an ephemeron: holder has two slots that scan does not report; what the one at value refers to is kept as long as the
 holder lives and what the one at key refers to does. Offsets in bytes from its beginning. Not a safepoint.
 */
hw_status hw_add_ephemeron(hw_mutator *mutator,
                           hw_object holder,
                           uint32_t key,
                           uint32_t value);

/*
 Reads an ephemeron: true, and key and value are stored to *key_out and *value_out; false if the key is dead, or there is none. Not a
 safepoint.
 */
bool hw_read_ephemeron(hw_mutator *mutator,
                       hw_object holder,
                       uint32_t key,
                       uint32_t value,
                       hw_object *key_out,
                       hw_object *value_out);

/*
 Registers a finalizer: when nothing reaches the object any more, it is queued for hw_next_finalizable, and kept alive until it is taken
 from there. token comes back with it. Not a safepoint.
 */
hw_status hw_add_finalizer(hw_mutator *mutator,
                           hw_object o,
                           hw_finalizer_order order,
                           void *token);

/*
 Takes the next object that is to be finalized: true, and it is stored to *o, and its token to *token. It may be registered again. Not a
 safepoint.
 */
bool hw_next_finalizable(hw_mutator *mutator,
                         hw_object *o,
                         void **token);

/*
 The message of the last call on this thread that failed; empty if none has. Good until the next call that fails.
 */
const char *hw_last_error(void);

/*
 A status in a few words, such as "out of memory".
 */
const char *hw_status_name(uint32_t status);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* HEAPWRIGHT_H */

/* ---- what needs no call ------------------------------------------------------------------------------------------ */

/* Reports count fields that lie one after the other. In scan only. */
static inline void hw_visit(hw_slot_visitor *visit, hw_object *first, size_t count) {
  visit->visit(visit->context, first, count);
}

/* Reports count words outside of the heap, one after the other, each with a reference or null: updated if objects move. */
static inline void hw_root(hw_root_visitor *visit, hw_object *first, size_t count) {
  visit->visit(visit->context, first, count);
}

/* Reports a reference that cannot be updated: the object stays where it is in this collection. */
static inline void hw_root_pinned(hw_root_visitor *visit, hw_object object) {
  visit->pinned(visit->context, object);
}

/* Reports a word that may be a reference, or lead into an object, as of a stack: what it leads to stays alive and where it is.
   Ignored without HW_OBJECT_MAP. */
static inline void hw_root_ambiguous(hw_root_visitor *visit, size_t word) {
  visit->ambiguous(visit->context, word);
}

/* For the callback size: an object that was asked for its identity hash and then moved is larger. bytes is what it was allocated
   with. */
static inline size_t hw_size(hw_object object, size_t bytes) {
  return *(const size_t *)object & 0x40 ? (bytes + 15) & ~(size_t)7 : bytes;
}

/* Allocates bytes of zeroed memory, at least 16, aligned to 8 (to 16 with HW_OBJECT_MAP): HW_OK, and the object is stored to *out. A
   safepoint. The low eight bits of the first word are the heap's: set the others with |=. */
static inline hw_status hw_alloc(hw_mutator *mutator, size_t bytes, hw_object *out) {
  hw_fast_path *fast = (hw_fast_path *)(void *)mutator;
  size_t *run, step;
  if (bytes > fast->most) return hw_alloc_slow(mutator, bytes, out);
  bytes = bytes < 16 ? 16 : (bytes + 7) & ~(size_t)7;
  if (fast->cursor != NULL) {
    run = fast->cursor;
    step = bytes;
  } else {
    hw_class class_ = fast->classes[bytes / 8];
    if (*fast->runs == NULL) return hw_alloc_slow(mutator, bytes, out);
    run = (size_t *)(void *)(*fast->runs + fast->first + class_.number * fast->stride);
    step = class_.bytes;
  }
  /* run[0] is the cursor, run[1] the limit. */
  if (step > run[1] - run[0]) return hw_alloc_slow(mutator, bytes, out);
  {
    size_t *object = (size_t *)run[0];
    run[0] += step;
    *object = *fast->header;
    *out = object;
  }
  return HW_OK;
}

/* A safepoint: stops here if a collection waits. To be called at least once in each loop that does not allocate. */
static inline void hw_poll(hw_mutator *mutator) {
  const hw_fast_path *fast = (const hw_fast_path *)(const void *)mutator;
  if (*(const volatile uint32_t *)fast->interrupt != 0) hw_poll_slow(mutator);
}

/* Writes a reference, or null, into a field of an object. Not a safepoint. */
static inline void hw_write(hw_mutator *mutator, hw_object object, hw_object *slot, hw_object value) {
  const hw_fast_path *fast = (const hw_fast_path *)(const void *)mutator;
  if (*(const volatile uint8_t *)fast->barrier != 0) hw_before_write(mutator, object, slot);
  *(volatile hw_object *)slot = value;
}

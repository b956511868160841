/* ---- what needs no call ------------------------------------------------------------------------------------------ */

/* Reports `count` fields that lie one after the other. In `scan` only. */
static inline void hw_visit(hw_slot_visitor *visit, hw_object *first, size_t count) {
  visit->visit(visit->context, first, count);
}

/* Reports `count` words outside of the heap, one after the other, each with a reference or null: updated if objects move. */
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

/* For the callback `size`: an object that was asked for its identity hash and then moved is larger. `bytes` is what it was allocated
   with. */
static inline size_t hw_size(hw_object object, size_t bytes) {
  return *(const size_t *)object & 0x40 ? (bytes + 15) & ~(size_t)7 : bytes;
}

/* Allocates `bytes` of zeroed memory, at least 16, aligned to 8 (to 16 with HW_OBJECT_MAP): HW_OK, and the object is stored to `*out`. A
   safepoint. The low eight bits of the first word are the heap's: set the others with `|=`. */
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

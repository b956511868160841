// A library whose data refers to objects of the heap.
void *roots[100];

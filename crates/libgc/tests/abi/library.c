void *a_root;

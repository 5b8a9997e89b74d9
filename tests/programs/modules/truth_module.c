/* A library to be opened at run time: its thread-local storage is allocated dynamically. */
void **truth_module_slots(void);

static __thread void *slots[600];

void **truth_module_slots(void)
{
    return slots;
}

/* A library to be opened at run time: its thread-local storage is allocated dynamically. */
void *volatile *truth_module_slots(void);

static __thread void *volatile slots[600];

void *volatile *truth_module_slots(void)
{
    return slots;
}

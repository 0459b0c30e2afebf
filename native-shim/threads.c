/* Which threads may wait for a page: each says what it does in a place of its own, by a plain store, and who answers
 * page faults looks there. */
#define _GNU_SOURCE
#include "threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PLACES 2048

static struct place {
    _Atomic int32_t tid;
    _Atomic int32_t doing;
} places[PLACES];
static _Atomic int32_t used; /* places from here on were never taken */
static struct place nowhere; /* for more threads than places: their faults count as foreign, too many rather than too few */

static __thread struct place *own __attribute__((tls_model("initial-exec")));
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;

static void leave(void *at)
{
    struct place *place = at;
    atomic_store(&place->doing, VMM_DOING_OTHER);
    atomic_store(&place->tid, 0);
}

static void make_key(void)
{
    pthread_key_create(&key, leave);
}

static struct place *take(void)
{
    int32_t tid = (int32_t)syscall(SYS_gettid);
    pthread_once(&once, make_key);
    for (int i = 0; i < PLACES; i++) {
        int32_t none = 0;
        if (atomic_load(&places[i].tid) != 0 || !atomic_compare_exchange_strong(&places[i].tid, &none, tid))
            continue;
        for (int32_t most = atomic_load(&used); most <= i && !atomic_compare_exchange_weak(&used, &most, i + 1);)
            ;
        pthread_setspecific(key, &places[i]);
        return &places[i];
    }
    return &nowhere;
}

int vmm_thread_does(int doing)
{
    if (own == NULL)
        own = take();
    int before = atomic_load_explicit(&own->doing, memory_order_relaxed);
    atomic_store_explicit(&own->doing, own == &nowhere ? VMM_DOING_OTHER : doing, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst); /* the fault that is looked at comes after it; the kernel orders the rest */
    return before;
}

int vmm_thread_doing(int32_t tid)
{
    for (int32_t i = 0, end = atomic_load(&used); i < end; i++)
        if (atomic_load_explicit(&places[i].tid, memory_order_relaxed) == tid)
            return atomic_load_explicit(&places[i].doing, memory_order_relaxed);
    return VMM_DOING_OTHER;
}

/* Gives a process under libfaketime the C library's own condition variables back.
 *
 * libfaketime 0.9.10 wraps them, and with the monotonic clock left alone each wait with a timeout ends at once. Python's
 * interpreter lock waits on one, so that every thread in want of the lock spins. Loaded before libfaketime.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <time.h>

static void *of_libc(const char *name)
{
    return dlvsym(dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), name, SYMBOL_VERSION);
}

int pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes)
{
    static int (*real)(pthread_cond_t *, const pthread_condattr_t *);
    if (!real)
        real = of_libc("pthread_cond_init");
    return real(condition, attributes);
}

int pthread_cond_destroy(pthread_cond_t *condition)
{
    static int (*real)(pthread_cond_t *);
    if (!real)
        real = of_libc("pthread_cond_destroy");
    return real(condition);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until)
{
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!real)
        real = of_libc("pthread_cond_timedwait");
    return real(condition, mutex, until);
}

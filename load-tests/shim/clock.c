/*
 * A wall clock that jumps, as a library to be preloaded into the process under test (LD_PRELOAD).
 *
 * The file that TANDEM_CLOCK names holds one signed 64-bit number, in the byte order of the machine: nanoseconds that
 * the wall clock is ahead. The test may write another at any time. Clocks that are not the wall's are what they are.
 * What asks the kernel without libc is not seen; Rust's SystemTime asks libc. 64-bit Linux only.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000L

_Static_assert(sizeof(long) == 8, "64-bit only");

static pthread_once_t once = PTHREAD_ONCE_INIT;
static volatile const long *ahead_ns;

static void start(void) {
    const char *path = getenv("TANDEM_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *page = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED)
        abort();
    ahead_ns = page;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result != 0 || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
        return result;
    pthread_once(&once, start);
    if (ahead_ns) {
        long ns = now->tv_sec * SECOND + now->tv_nsec + *ahead_ns;
        now->tv_sec = ns / SECOND;
        now->tv_nsec = ns % SECOND;
    }
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (out)
        *out = precise.tv_sec;
    return precise.tv_sec;
}

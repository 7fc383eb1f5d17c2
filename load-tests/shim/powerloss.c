/*
 * A disk that loses power, as a library to be preloaded into the process under test (LD_PRELOAD).
 *
 * Before each call that changes a file or directory below TANDEM_POWERLOSS_DIR, what is about to be lost is written
 * to a journal; after each successful fsync or fdatasync, a mark. When the process has been killed, the test undoes
 * everything that no mark covers: that is what a power failure may leave. Everything happens under one lock, so the
 * order in the journal is the order on the file.
 *
 * The folder TANDEM_POWERLOSS_JOURNAL (same file system, not below the first) has four kinds of entries:
 *   journal-TIME-PID  the records of one process, see journal_write() and ../src/powerloss.rs, which reads them; many
 *                 processes may live and be killed before the power fails, but only one at a time may use a file
 *   saved-N       a second name of a file that was unlinked or replaced, so that it can come back
 *   faults        written by the test at any time, read here at each call: words of the list in read_faults()
 *   met           a byte for each call that met one of sync-*, write-eio and write-short
 *
 * Strict: a sync of a file says nothing about its name, only a sync of the directory does; sync(2), syncfs(2) and
 * sync_file_range(2) cover nothing. Not seen: mmap, fallocate, O_SYNC, io_uring, calls that libc makes inside itself,
 * symbolic links and "..". copy_file_range and sendfile are refused, so that callers fall back on read and write.
 * The paths in both variables must be canonical. 64-bit Linux only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(off_t) == 8 && sizeof(long) == 8, "64-bit only");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char watched[PATH_MAX];    /* the directory whose files are watched; empty: nothing is */
static char journal_dir[PATH_MAX];
static int journal_fd = -1;
/* Numbers of syncs and of saved files, made unique by the process id and when it began: one that executes itself anew
   keeps the id. */
static long counter;
static int disk_full_told;        /* the short write that precedes ENOSPC has happened */

static void fatal(const char *what) {
    char text[256];
    int length = snprintf(text, sizeof text, "powerloss shim: %s: %s\n", what, strerror(errno));
    syscall(SYS_write, 2, text, length);
    abort();
}

static long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

static void start(void) {
    const char *dir = getenv("TANDEM_POWERLOSS_DIR"), *journal = getenv("TANDEM_POWERLOSS_JOURNAL");
    if (!dir || !journal)
        return;
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/journal-%ld-%d", journal, now_ns(), (int)getpid());
    journal_fd = syscall(SYS_openat, AT_FDCWD, path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    if (journal_fd < 0)
        fatal("cannot open the journal");
    snprintf(journal_dir, sizeof journal_dir, "%s", journal);
    snprintf(watched, sizeof watched, "%s", dir);
}

/* Whether this absolute path is the watched directory or below it. */
static int is_watched(const char *path) {
    pthread_once(&once, start);
    size_t length = strlen(watched);
    return length && !strncmp(path, watched, length) && (path[length] == '/' || path[length] == 0);
}

/* The path of a descriptor; 0 if it has none. */
static int path_of(int fd, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return 1;
}

/* Whether this descriptor is of a watched file or directory; its status. */
static int is_watched_fd(int fd, struct stat *status) {
    char path[PATH_MAX];
    pthread_once(&once, start);
    if (!*watched || fd < 0 || !path_of(fd, path))
        return 0;
    return is_watched(path) && fstat(fd, status) == 0 && (S_ISREG(status->st_mode) || S_ISDIR(status->st_mode));
}

/* The absolute form of a path; 0 if there is none. */
static int absolute(int dirfd, const char *path, char out[PATH_MAX]) {
    char base[PATH_MAX] = "", link[64];
    if (path[0] != '/') {
        if (dirfd == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
        ssize_t length = readlink(link, base, sizeof base - 2);
        if (length <= 0)
            return 0;
        base[length] = '/';
        base[length + 1] = 0;
    }
    return snprintf(out, PATH_MAX, "%s%s", base, path) < PATH_MAX;
}

/* Inode of the directory that holds this absolute path. */
static ino_t parent_of(const char *path) {
    char parent[PATH_MAX];
    struct stat status;
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (!slash)
        return 0;
    *slash = 0;
    return stat(parent, &status) ? 0 : status.st_ino;
}

/* ---- The journal ------------------------------------------------------------------------------------------------ */

static void write_fully(const char *bytes, size_t length) {
    while (length) {
        ssize_t written = syscall(SYS_write, journal_fd, bytes, length);
        if (written <= 0)
            fatal("cannot write the journal");
        bytes += written;
        length -= written;
    }
}

/*
 * One record: "TIME KIND INODE A B C N\n" and N bytes. The inode is that of the file, or of the directory that has the name.
 *   W inode offset size length   `length` bytes will be written at `offset` of a file that has `size` bytes; then the
 *                                bytes that are there now
 *   T inode offset size 0        a file of `size` bytes will end at `offset`; then the bytes that are cut
 *   C inode 0 0 0                a file or directory will be created; then its path
 *   U inode saved 0 0            a file will be unlinked, and is kept as saved-`saved`; then its path
 *   R inode saved 0 0            a file will be renamed; what it replaces, if saved is not 0, is kept; then its old
 *                                path, a 0 and its new path
 *   S inode number 0 0           a sync begins
 *   D inode number 0 0           it is done: everything of this inode before its S is durable
 */
static void journal_write(char kind, ino_t inode, long a, long b, long c, const char *bytes, size_t length) {
    char head[160];
    int size = snprintf(head, sizeof head, "%ld %c %lu %ld %ld %ld %zu\n", now_ns(), kind, (unsigned long)inode, a, b, c, length);
    write_fully(head, size);
    write_fully(bytes, length);
}

static long next_number(void) {
    static long image;
    if (!image) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        image = (now.tv_sec * 1000 + now.tv_nsec / 1000000) & 0xfffff;
    }
    return ((long)getpid() << 40) + (image << 20) + ++counter;
}

/* Journals what `length` bytes at `offset` of this file hold now. Kind: W or T. */
static void journal_old(char kind, int fd, const struct stat *status, off_t offset, size_t length) {
    size_t old = 0, have = 0;
    if (offset < status->st_size)
        old = (size_t)(status->st_size - offset) < length ? (size_t)(status->st_size - offset) : length;
    char *bytes = calloc(1, old + 1);
    if (!bytes)
        fatal("no memory");
    if (old) {
        /* The descriptor may be for writing only. */
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        int reader = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
        if (reader < 0)
            fatal("cannot read what is about to be overwritten");
        while (have < old) {
            ssize_t got = syscall(SYS_pread64, reader, bytes + have, old - have, offset + have);
            if (got <= 0)
                fatal("cannot read what is about to be overwritten");
            have += got;
        }
        syscall(SYS_close, reader);
    }
    journal_write(kind, status->st_ino, offset, status->st_size, kind == 'W' ? length : 0, bytes, old);
    free(bytes);
}

/* Gives a file a second name in the journal's folder; its number, 0 if there is no such file. */
static long save(const char *path) {
    char target[PATH_MAX + 64];
    long number = next_number();
    snprintf(target, sizeof target, "%s/saved-%ld", journal_dir, number);
    if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, target, 0) == 0)
        return number;
    if (errno != ENOENT)
        fatal("cannot keep a file that is being removed");
    return 0;
}

/* ---- Faults ----------------------------------------------------------------------------------------------------- */

struct faults {
    int sync_noop;     /* fsync and fdatasync say yes and do nothing */
    int sync_eio;      /* they fail */
    long sync_slow_ms; /* they take so long */
    int write_eio;     /* writes fail */
    int write_enospc;  /* the first write is cut short, the next fails: the disk is full */
    int write_short;   /* half of a write is done, which is no error */
    int once;          /* the first call that meets one of these is the last */
};

static void faults_file(char path[PATH_MAX + 16]) {
    snprintf(path, PATH_MAX + 16, "%s/faults", journal_dir);
}

/* The faults that a call on this descriptor meets. */
static struct faults read_faults(int of) {
    struct faults faults = {0};
    char path[PATH_MAX + 16], text[256], file[PATH_MAX];
    faults_file(path);
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return faults;
    ssize_t length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    text[length > 0 ? length : 0] = 0;
    if (strstr(text, "only-own-log") && (!path_of(of, file) || !strstr(file, "/log/own/")))
        return faults;
    if (strstr(text, "only-peer-log") && (!path_of(of, file) || !strstr(file, "/log/peer/")))
        return faults;
    if (strstr(text, "only-core") && (!path_of(of, file) || !strstr(file, "/core/")))
        return faults;
    if (strstr(text, "only-store") && (!path_of(of, file) || !strstr(file, "/store/")))
        return faults;
    faults.write_short = strstr(text, "write-short") != NULL;
    faults.once = strstr(text, "once") != NULL;
    faults.sync_noop = strstr(text, "sync-noop") != NULL;
    faults.sync_eio = strstr(text, "sync-eio") != NULL;
    faults.write_eio = strstr(text, "write-eio") != NULL;
    faults.write_enospc = strstr(text, "write-enospc") != NULL;
    const char *slow = strstr(text, "sync-slow=");
    faults.sync_slow_ms = slow ? atol(slow + strlen("sync-slow=")) : 0;
    return faults;
}

/* A call has met them: one byte more in the file "met". Under the lock. */
static void spend(const struct faults *faults) {
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/met", journal_dir);
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || syscall(SYS_write, fd, ".", 1) != 1)
        fatal("cannot note a fault");
    syscall(SYS_close, fd);
    if (!faults->once)
        return;
    faults_file(path);
    syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

/* How many of `length` bytes may be written now; -1 with errno for none. */
static ssize_t may_write(int fd, size_t length) {
    struct faults faults = read_faults(fd);
    if (faults.write_eio) {
        spend(&faults);
        errno = EIO;
        return -1;
    }
    if (faults.write_short && length > 1) {
        spend(&faults);
        return length / 2;
    }
    if (faults.write_enospc && (disk_full_told || length < 2)) {
        errno = ENOSPC;
        return -1;
    }
    disk_full_told = faults.write_enospc;
    return faults.write_enospc ? length / 2 : length;
}

/* ---- Writes ----------------------------------------------------------------------------------------------------- */

static off_t place_of(int fd, const struct stat *status) {
    return fcntl(fd, F_GETFL) & O_APPEND ? status->st_size : lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    struct stat status;
    if (!is_watched_fd(fd, &status))
        return syscall(SYS_write, fd, bytes, length);
    pthread_mutex_lock(&lock);
    ssize_t result = may_write(fd, length);
    if (result >= 0 && fstat(fd, &status) == 0) {
        journal_old('W', fd, &status, place_of(fd, &status), result);
        result = syscall(SYS_write, fd, bytes, result);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
    struct stat status;
    if (!is_watched_fd(fd, &status))
        return syscall(SYS_pwrite64, fd, bytes, length, offset);
    pthread_mutex_lock(&lock);
    ssize_t result = may_write(fd, length);
    if (result >= 0 && fstat(fd, &status) == 0) {
        journal_old('W', fd, &status, offset, result);
        result = syscall(SYS_pwrite64, fd, bytes, result, offset);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return pwrite64(fd, bytes, length, offset);
}

/* Writes of several parts are simple writes of the first part that is not empty: a short write is allowed. */
static const struct iovec *first_part(const struct iovec *parts, int count) {
    while (count > 1 && parts->iov_len == 0)
        parts++, count--;
    return parts;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    struct stat status;
    if (count < 1 || !is_watched_fd(fd, &status))
        return syscall(SYS_writev, fd, parts, count);
    parts = first_part(parts, count);
    return write(fd, parts->iov_base, parts->iov_len);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset) {
    struct stat status;
    if (count < 1 || !is_watched_fd(fd, &status))
        return syscall(SYS_pwritev, fd, parts, count, offset, 0L);
    parts = first_part(parts, count);
    return pwrite64(fd, parts->iov_base, parts->iov_len, offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    return pwritev64(fd, parts, count, offset);
}

int ftruncate64(int fd, off_t length) {
    struct stat status;
    if (!is_watched_fd(fd, &status))
        return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    int result = fstat(fd, &status);
    if (result == 0) {
        journal_old('T', fd, &status, length, status.st_size > length ? status.st_size - length : 0);
        result = syscall(SYS_ftruncate, fd, length);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t length) {
    return ftruncate64(fd, length);
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags) {
    struct stat status;
    if (!is_watched_fd(out, &status))
        return syscall(SYS_copy_file_range, in, from, out, to, length, flags);
    errno = EXDEV;
    return -1;
}

ssize_t sendfile64(int out, int in, off64_t *offset, size_t length) {
    struct stat status;
    if (!is_watched_fd(out, &status))
        return syscall(SYS_sendfile, out, in, offset, length);
    errno = EINVAL;
    return -1;
}

ssize_t sendfile(int out, int in, off_t *offset, size_t length) {
    return sendfile64(out, in, offset, length);
}

/* ---- Names ------------------------------------------------------------------------------------------------------ */

/* Journals that this path will come into being, unless it is there or cannot be. */
static void journal_new(const char *full) {
    ino_t parent = parent_of(full);
    if (parent && syscall(SYS_faccessat, AT_FDCWD, full, F_OK) != 0)
        journal_write('C', parent, 0, 0, 0, full, strlen(full));
}

static int open_at(int dirfd, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || !absolute(dirfd, path, full) || !is_watched(full))
        return syscall(SYS_openat, dirfd, path, flags, mode);
    pthread_mutex_lock(&lock);
    if (flags & O_CREAT)
        journal_new(full);
    int fd = syscall(SYS_openat, dirfd, path, flags & ~O_TRUNC, mode);
    pthread_mutex_unlock(&lock);
    /* What O_TRUNC throws away is journaled like any other cut. */
    if (fd >= 0 && (flags & O_TRUNC) && ftruncate64(fd, 0) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static mode_t mode_argument(int flags, va_list arguments) {
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

#define OPEN_BODY(dirfd)                                  \
    va_list arguments;                                    \
    va_start(arguments, flags);                           \
    mode_t mode = mode_argument(flags, arguments);        \
    va_end(arguments);                                    \
    return open_at(dirfd, path, flags, mode)

int open(const char *path, int flags, ...) { OPEN_BODY(AT_FDCWD); }
int open64(const char *path, int flags, ...) { OPEN_BODY(AT_FDCWD); }
int openat(int dirfd, const char *path, int flags, ...) { OPEN_BODY(dirfd); }
int openat64(int dirfd, const char *path, int flags, ...) { OPEN_BODY(dirfd); }

int mkdirat(int dirfd, const char *path, mode_t mode) {
    char full[PATH_MAX];
    if (!absolute(dirfd, path, full) || !is_watched(full))
        return syscall(SYS_mkdirat, dirfd, path, mode);
    pthread_mutex_lock(&lock);
    journal_new(full);
    int result = syscall(SYS_mkdirat, dirfd, path, mode);
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    return mkdirat(AT_FDCWD, path, mode);
}

int unlinkat(int dirfd, const char *path, int flags) {
    char full[PATH_MAX];
    if ((flags & AT_REMOVEDIR) || !absolute(dirfd, path, full) || !is_watched(full))
        return syscall(SYS_unlinkat, dirfd, path, flags);
    pthread_mutex_lock(&lock);
    long saved = save(full);
    if (saved)
        journal_write('U', parent_of(full), saved, 0, 0, full, strlen(full));
    int result = syscall(SYS_unlinkat, dirfd, path, flags);
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    return unlinkat(AT_FDCWD, path, 0);
}

int renameat2(int olddir, const char *old, int newdir, const char *new, unsigned flags) {
    char from[PATH_MAX], both[2 * PATH_MAX], to[PATH_MAX];
    if (!absolute(olddir, old, from) || !absolute(newdir, new, to) || !is_watched(from) || !is_watched(to))
        return syscall(SYS_renameat2, olddir, old, newdir, new, flags);
    if (flags & RENAME_EXCHANGE) {
        errno = ENOSYS;
        fatal("two names are exchanged, which is not undone here");
    }
    pthread_mutex_lock(&lock);
    long saved = flags & RENAME_NOREPLACE ? 0 : save(to);
    size_t length = strlen(from);
    memcpy(both, from, length + 1);
    memcpy(both + length + 1, to, strlen(to));
    if (saved || syscall(SYS_faccessat, AT_FDCWD, to, F_OK) != 0)
        journal_write('R', parent_of(to), saved, 0, 0, both, length + 1 + strlen(to));
    int result = syscall(SYS_renameat2, olddir, old, newdir, new, flags);
    pthread_mutex_unlock(&lock);
    return result;
}

int renameat(int olddir, const char *old, int newdir, const char *new) {
    return renameat2(olddir, old, newdir, new, 0);
}

int rename(const char *old, const char *new) {
    return renameat(AT_FDCWD, old, AT_FDCWD, new);
}

/* ---- Syncs ------------------------------------------------------------------------------------------------------ */

static int sync_fd(int fd, long call) {
    struct stat status;
    if (!is_watched_fd(fd, &status))
        return syscall(call, fd);
    pthread_mutex_lock(&lock);
    struct faults faults = read_faults(fd);
    if (faults.sync_noop || faults.sync_eio || faults.sync_slow_ms)
        spend(&faults);
    long number = next_number();
    journal_write('S', status.st_ino, number, 0, 0, "", 0);
    pthread_mutex_unlock(&lock);

    struct timespec pause = {faults.sync_slow_ms / 1000, faults.sync_slow_ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
    if (faults.sync_noop)
        return 0;
    if (faults.sync_eio) {
        errno = EIO;
        return -1;
    }
    int result = syscall(call, fd);
    if (result == 0) {
        pthread_mutex_lock(&lock);
        journal_write('D', status.st_ino, number, 0, 0, "", 0);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int fsync(int fd) {
    return sync_fd(fd, SYS_fsync);
}

int fdatasync(int fd) {
    return sync_fd(fd, SYS_fdatasync);
}

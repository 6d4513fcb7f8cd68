/* Faults under a process: preloaded, it counts calls on files below a folder, and memory asked for, and lets one of them go wrong.

   Children forked later share the count. Armed by `faults_arm`; until then everything passes. See tests/campaign/faults.py. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { FILES = 4096, ALLOCATION = 1 << 16 };
enum { READS = 1, WRITES = 2, ALLOCATIONS = 4 };
enum { SHORT = -1, KILL = -2, STOP = -3, SLOW = -4, INTERRUPT = -5, CLOCK = -6, TERMINATE = -7 };

struct state { atomic_long count; atomic_int back_s; atomic_long struck; };
static struct state *state;
static char folder[PATH_MAX];
static char *names[FILES];
static size_t length;
static int armed, kinds, fault, sticky, who, noted = -1;
static long at;
static pid_t main_process;

#define REAL(result, name, ...) static result (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name)

int faults_arm(const char *below, int which, long position, int what, int stays, int in_whom, int notes) {
    if (!state) state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    atomic_store(&state->count, 0), atomic_store(&state->back_s, 0), atomic_store(&state->struck, 0);
    strncpy(folder, below, sizeof folder - 1);
    length = strlen(folder);
    kinds = which, at = position, fault = what, sticky = stays, who = in_whom, noted = notes;
    main_process = getpid();
    armed = 1;
    return 0;
}

long faults_disarm(void) { armed = 0; return state ? atomic_load(&state->struck) : 0; }

static void note(int kind, const char *operation, const char *path) {
    static ssize_t (*real)(int, const void *, size_t);
    char line[PATH_MAX + 64];
    if (!real) real = dlsym(RTLD_NEXT, "write");
    int n = snprintf(line, sizeof line, "%d\t%s\t%s\t%d\n", kind, operation, path ? path : "", getpid() != main_process);
    real(noted, line, n < (int)sizeof line ? n : (int)sizeof line - 1);
}

/* 0: pass; -1: fail, errno set; 1: transfer a part only. */
static int reached(int kind, const char *operation, const char *path) {
    if (!armed || !(kinds & kind) || (who && (getpid() != main_process) != (who == 2))) return 0;
    long now = atomic_fetch_add(&state->count, 1);
    int before = errno;
    if (noted >= 0) note(kind, operation, path);
    errno = before;
    int lasts = sticky && at >= 0 && now > at && kind != READS && strcmp(operation, "unlink") && strcmp(operation, "chmod");
    if (now != at && !lasts) return 0;
    atomic_fetch_add(&state->struck, 1);
    switch (fault) {
    case SHORT: return 1;
    case KILL: kill(getpid(), SIGKILL); return 0;
    case STOP: raise(SIGSTOP); return 0;
    case SLOW: usleep(2000000); return 0;
    case INTERRUPT: raise(SIGINT); return 0;
    case TERMINATE: raise(SIGTERM); return 0;
    case CLOCK: atomic_store(&state->back_s, 86400); return 0;
    }
    errno = fault;
    return -1;
}

static int below(const char *path) {
    return armed && path && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}
static const char *named(int descriptor) {
    return armed && descriptor >= 0 && descriptor < FILES ? names[descriptor] : NULL;
}
static const char *whole(int base, const char *path, char *buffer) { /* a path that is relative to an open folder */
    if (!armed || !path || path[0] == '/' || base == AT_FDCWD) return path;
    if (!named(base)) return NULL;
    snprintf(buffer, PATH_MAX, "%s/%s", named(base), path);
    return buffer;
}
static int kept(int descriptor, const char *path) {
    if (descriptor >= 0 && descriptor < FILES) {
        free(names[descriptor]);
        names[descriptor] = below(path) ? strdup(path) : NULL;
    }
    return descriptor;
}

static int opened(int base, const char *path, int flags, mode_t mode) {
    REAL(int, openat, int, const char *, int, ...);
    char buffer[PATH_MAX];
    const char *full = whole(base, path, buffer);
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    if (below(full) && reached(writes ? WRITES : READS, writes ? "create" : "open", full) < 0) return -1;
    return kept(real(base, path, flags, mode), full);
}
#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list l; va_start(l, flags); mode = va_arg(l, mode_t); va_end(l); }
int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int openat(int base, const char *path, int flags, ...) { MODE(flags) return opened(base, path, flags, mode); }
int openat64(int base, const char *path, int flags, ...) { MODE(flags) return opened(base, path, flags, mode); }

#define FOPEN(name) FILE *name(const char *path, const char *mode) { \
    REAL(FILE *, name, const char *, const char *); \
    int writes = strpbrk(mode, "wa+") != NULL; \
    if (below(path) && reached(writes ? WRITES : READS, writes ? "create" : "open", path) < 0) return NULL; \
    FILE *file = real(path, mode); \
    if (file) kept(fileno(file), path); \
    return file; }
FOPEN(fopen)
FOPEN(fopen64)

int close(int descriptor) {
    REAL(int, close, int);
    if (descriptor >= 0 && descriptor < FILES && names[descriptor]) free(names[descriptor]), names[descriptor] = NULL;
    return real(descriptor);
}
int dup(int descriptor) { REAL(int, dup, int); return kept(real(descriptor), named(descriptor)); }

/* `size` becomes the part that is transferred; more than one byte, so that it can be one. */
static int moves(int kind, const char *operation, int descriptor, size_t *size) {
    const char *path = named(descriptor);
    int what = path ? reached(kind, operation, path) : 0;
    if (what > 0 && *size > 1) *size /= 2;
    return what < 0;
}
ssize_t read(int d, void *b, size_t n) { REAL(ssize_t, read, int, void *, size_t); return moves(READS, "read", d, &n) ? -1 : real(d, b, n); }
ssize_t pread(int d, void *b, size_t n, off_t o) {
    REAL(ssize_t, pread, int, void *, size_t, off_t); return moves(READS, "read", d, &n) ? -1 : real(d, b, n, o); }
ssize_t pread64(int d, void *b, size_t n, off64_t o) {
    REAL(ssize_t, pread64, int, void *, size_t, off64_t); return moves(READS, "read", d, &n) ? -1 : real(d, b, n, o); }
ssize_t pwrite(int d, const void *b, size_t n, off_t o) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t); return moves(WRITES, "write", d, &n) ? -1 : real(d, b, n, o); }
ssize_t pwrite64(int d, const void *b, size_t n, off64_t o) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t); return moves(WRITES, "write", d, &n) ? -1 : real(d, b, n, o); }
ssize_t writev(int d, const struct iovec *v, int n) {
    REAL(ssize_t, writev, int, const struct iovec *, int); size_t all = 2; return moves(WRITES, "write", d, &all) ? -1 : real(d, v, n); }
ssize_t sendfile(int out, int in, off_t *o, size_t n) {
    REAL(ssize_t, sendfile, int, int, off_t *, size_t); return moves(WRITES, "write", out, &n) ? -1 : real(out, in, o, n); }
ssize_t sendfile64(int out, int in, off64_t *o, size_t n) {
    REAL(ssize_t, sendfile64, int, int, off64_t *, size_t); return moves(WRITES, "write", out, &n) ? -1 : real(out, in, o, n); }
int fsync(int d) { REAL(int, fsync, int); size_t n = 0; return moves(WRITES, "fsync", d, &n) ? -1 : real(d); }
int ftruncate64(int d, off64_t n) { REAL(int, ftruncate64, int, off64_t); size_t m = 0; return moves(WRITES, "truncate", d, &m) ? -1 : real(d, n); }

/* A write that is out of space has written what there was room for. */
ssize_t write(int d, const void *b, size_t n) {
    REAL(ssize_t, write, int, const void *, size_t);
    size_t part = n;
    if (!moves(WRITES, "write", d, &part)) return real(d, b, part);
    if (fault != ENOSPC || n < 2 || (sticky && atomic_load(&state->struck) > 1)) return -1;
    if (!sticky) at = atomic_load(&state->count); /* the rest of it fails as well */
    return real(d, b, n / 2);
}

#define ONE(name, operation) int name(const char *path) { \
    REAL(int, name, const char *); return below(path) && reached(WRITES, operation, path) < 0 ? -1 : real(path); }
ONE(unlink, "unlink")
ONE(rmdir, "unlink")
int mkdir(const char *p, mode_t m) {
    REAL(int, mkdir, const char *, mode_t); return below(p) && reached(WRITES, "mkdir", p) < 0 ? -1 : real(p, m); }
int chmod(const char *p, mode_t m) {
    REAL(int, chmod, const char *, mode_t); return below(p) && reached(WRITES, "chmod", p) < 0 ? -1 : real(p, m); }
int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *); return below(to) && reached(WRITES, "rename", to) < 0 ? -1 : real(from, to); }
int unlinkat(int base, const char *p, int f) {
    REAL(int, unlinkat, int, const char *, int);
    char b[PATH_MAX]; const char *full = whole(base, p, b);
    return below(full) && reached(WRITES, "unlink", full) < 0 ? -1 : real(base, p, f); }
DIR *opendir(const char *p) {
    REAL(DIR *, opendir, const char *); return below(p) && reached(READS, "list", p) < 0 ? NULL : real(p); }
void *mmap64(void *a, size_t n, int p, int f, int d, off64_t o) {
    REAL(void *, mmap64, void *, size_t, int, int, int, off64_t);
    return named(d) && reached(READS, "map", named(d)) < 0 ? MAP_FAILED : real(a, n, p, f, d, o); }

void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
static int refused(size_t size) { return armed && size >= ALLOCATION && reached(ALLOCATIONS, "allocate", NULL) < 0; }
void *malloc(size_t n) { return refused(n) ? NULL : __libc_malloc(n); }
void *calloc(size_t m, size_t n) { return refused(m * n) ? NULL : __libc_calloc(m, n); }
void *realloc(void *p, size_t n) { return refused(n) ? NULL : __libc_realloc(p, n); }
int posix_memalign(void **p, size_t a, size_t n) {
    if (refused(n)) return ENOMEM;
    *p = __libc_memalign(a, n);
    return *p || !n ? 0 : ENOMEM;
}
void *aligned_alloc(size_t a, size_t n) { return refused(n) ? NULL : __libc_memalign(a, n); }

int clock_gettime(clockid_t which, struct timespec *now) {
    REAL(int, clock_gettime, clockid_t, struct timespec *);
    int result = real(which, now);
    if (armed && state && which == CLOCK_REALTIME) now->tv_sec -= atomic_load(&state->back_s);
    return result;
}

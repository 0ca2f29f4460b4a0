/* The C layer: notes which files programs open, rename and close that are not Python, or are Python without its hook.
 *
 * Loaded by LD_PRELOAD into every process of a task. The notes are described in docs/trace.md. What holds here:
 *
 * - The program must not notice: errno is as its own call left it, nothing is printed, nothing is allocated, no lock is
 *   taken (these functions may be called in signal handlers, and between fork and exec).
 * - What a lost race may cost is a note that is written twice, never one that is lost or torn.
 * - A child made by vfork shares our memory, and writes nothing. One made by fork gets a file of its own.
 *
 * Static programs and raw system calls are not seen.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define READS 65536 /* names that are remembered, a power of two */
#define ALONE 2000 /* files that are noted one by one; of more, only their folders, and marks */
#define FOLDERS 8192
#define WRITES 1024
#define DESCRIPTORS 4096
#define MARK_BYTES (8u << 20)
#define HIGH_FD 700 /* programs that close or count descriptors begin with the low ones */
#define KEPT_ARGV 4096

extern char **environ;

static char trace[PATH_MAX], code[PATH_MAX], own_name[PATH_MAX + 64];
static int active; /* 0: not begun, 1: notes are taken, -1: this is no process of a task */
static int own_fd = -1, torn;
static dev_t own_device;
static ino_t own_inode;
static pid_t owner;
static _Atomic uint64_t reads[READS], folders[FOLDERS], written[WRITES];
static _Atomic uint32_t read_count, name_count;
static uint32_t written_at[WRITES]; /* seconds since boot */
static _Atomic uint8_t writing[DESCRIPTORS];
static _Atomic uint32_t moves; /* counts changes of the working folder, after which relative names are other files */
static unsigned char *_Atomic marks;

/* --- small things -------------------------------------------------------------------------------------------- */

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t hash(const char *text, uint64_t seed)
{
    uint64_t h = 1469598103934665603u ^ seed; /* FNV-1a, and then MurmurHash3's finish: names differ in the end only */
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 1099511628211u;
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
    return h ? h : 1;
}

/* Whether the number is new in the table; a full table knows nothing. */
static int add(_Atomic uint64_t *table, uint32_t size, uint64_t number)
{
    uint32_t i, at = (uint32_t)(number >> 32) & (size - 1);
    for (i = 0; i < 64; i++, at = (at + 1) & (size - 1)) {
        uint64_t there = atomic_load_explicit(&table[at], memory_order_relaxed), none = 0;
        if (there == number)
            return 0;
        if (there == 0) {
            if (atomic_compare_exchange_strong(&table[at], &none, number))
                return 1;
            if (none == number)
                return 0;
        }
    }
    return 1;
}

static int is_known(_Atomic uint64_t *table, uint32_t size, uint64_t number)
{
    uint32_t i, at = (uint32_t)(number >> 32) & (size - 1);
    for (i = 0; i < 64; i++, at = (at + 1) & (size - 1)) {
        uint64_t there = atomic_load_explicit(&table[at], memory_order_relaxed);
        if (there == number)
            return 1;
        if (there == 0)
            return 0;
    }
    return 0;
}

static int begins(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static int ends(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

/* What belongs to the system, which is recorded as a whole, and our own notes. */
static int is_skipped(const char *path)
{
    static const char *const prefixes[] = {"/proc/", "/sys/", "/dev/", "/etc/", "/usr/lib", "/usr/share/",
                                           "/usr/local/lib", "/lib/", "/lib64/", "/run/", 0};
    int i;
    if (strstr(path, "/site-packages/") || begins(path, trace))
        return 1;
    if (code[0] && begins(path, code))
        return 0;
    for (i = 0; prefixes[i]; i++)
        if (begins(path, prefixes[i]))
            return 1;
    return strstr(path, "/lib/python3") != 0;
}

/* The absolute form of a path that was given relative to a folder; 0 if it cannot be told. */
static const char *absolute(int folder, const char *path, char *buffer)
{
    size_t n;
    if (path[0] == '/')
        return path;
    if (folder == AT_FDCWD) {
        if (syscall(SYS_getcwd, buffer, PATH_MAX) < 0)
            return 0;
        n = strlen(buffer);
    } else {
        char link[64];
        ssize_t size;
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        size = readlink(link, buffer, PATH_MAX - 1);
        if (size <= 0)
            return 0;
        n = (size_t)size;
    }
    if (n + 1 + strlen(path) + 1 > PATH_MAX)
        return 0;
    buffer[n] = '/';
    strcpy(buffer + n + 1, path);
    return buffer;
}

/* What a way up after a link leads to is not what the names alone say; the descriptor knows. */
static const char *without_links(const char *path, int fd, char *buffer)
{
    char link[64];
    ssize_t size;
    if (!path || !strstr(path, "/.."))
        return path;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, buffer, PATH_MAX - 1);
    if (size <= 0)
        return path;
    buffer[size] = 0;
    return buffer;
}

/* --- writing notes ------------------------------------------------------------------------------------------- */

static size_t put(char *line, size_t at, size_t size, const char *text)
{
    for (; *text && at + 2 < size; text++) {
        char c = *text;
        if (c == '\\' || c == '\t' || c == '\n') {
            line[at++] = '\\';
            c = c == '\t' ? 't' : c == '\n' ? 'n' : c;
        }
        line[at++] = c;
    }
    return at;
}

/* Our file, at a descriptor that nothing else is likely to want. */
static void open_own(void)
{
    struct stat info;
    struct rlimit limit;
    int high = HIGH_FD, fd;
    if (!own_name[0])
        snprintf(own_name, sizeof own_name, "%s/%d-%llu-c", trace, (int)owner,
                 (unsigned long long)now_ms() * 1000000u + (unsigned)owner % 1000000u);
    fd = (int)syscall(SYS_openat, AT_FDCWD, own_name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur <= HIGH_FD)
        high = (int)limit.rlim_cur - 1;
    own_fd = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, high);
    if (own_fd < 0)
        own_fd = fd;
    else
        syscall(SYS_close, fd);
    if (fstat(own_fd, &info) == 0) {
        own_device = info.st_dev;
        own_inode = info.st_ino;
    }
}

/* Programs close what they do not know, and the number is then given to a file of theirs. */
static int is_own(void)
{
    struct stat info;
    return own_fd >= 0 && fstat(own_fd, &info) == 0 && info.st_dev == own_device && info.st_ino == own_inode;
}

static void write_line(const char *line, size_t size)
{
    if ((pid_t)syscall(SYS_getpid) != owner)
        return; /* made by vfork: it shares our memory */
    if (!is_own())
        open_own();
    if (own_fd < 0)
        return;
    if (torn)
        syscall(SYS_write, own_fd, "\n", 1);
    torn = syscall(SYS_write, own_fd, line, size) != (long)size;
}

static void note(const char *kind, const char *first, const char *second, const char *third)
{
    char line[3 * PATH_MAX];
    const char *fields[] = {first, second, third};
    size_t at = (size_t)snprintf(line, 64, "%s\t%llu", kind, (unsigned long long)now_ms());
    int i;
    for (i = 0; i < 3 && fields[i]; i++) {
        line[at++] = '\t';
        at = put(line, at, sizeof line - 2, fields[i]);
    }
    line[at++] = '\n';
    write_line(line, at);
}

/* Who this process is. */
static void note_process(void)
{
    char line[2 * PATH_MAX + 2 * KEPT_ARGV], text[PATH_MAX], argv[KEPT_ARGV];
    const char *rank = getenv("RANK");
    ssize_t size = readlink("/proc/self/exe", text, sizeof text - 1);
    size_t at, i, begun = 0;
    int fd;
    text[size > 0 ? size : 0] = 0;
    at = (size_t)snprintf(line, 128, "P\t%llu\tc\t%d\t%d\t", (unsigned long long)now_ms(), (int)owner, (int)getppid());
    at = put(line, at, sizeof line - 8, rank ? rank : "");
    line[at++] = '\t';
    at = put(line, at, sizeof line - 8, text);
    line[at++] = '\t';
    line[at++] = '\t';
    if (syscall(SYS_getcwd, text, sizeof text) < 0)
        text[0] = 0;
    at = put(line, at, sizeof line - 8, text);
    fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC, 0);
    size = fd < 0 ? 0 : read(fd, argv, sizeof argv - 1);
    if (fd >= 0)
        syscall(SYS_close, fd);
    for (i = 0; size > 0 && i < (size_t)size; i++)
        if (argv[i] == 0) {
            line[at++] = '\t';
            at = put(line, at, sizeof line - 8, argv + begun);
            begun = i + 1;
        }
    line[at++] = '\n';
    write_line(line, at);
}

/* --- files that are read in great number ---------------------------------------------------------------------- */

static uint32_t crc32_of(const char *text)
{
    static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                       0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                       0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = 0xffffffffu;
    for (; *text; text++) {
        crc ^= (unsigned char)*text;
        crc = table[crc & 15] ^ (crc >> 4);
        crc = table[crc & 15] ^ (crc >> 4);
    }
    return ~crc;
}

/* The map of marks that all processes of the tasks share. A full disk must not become SIGBUS: so it is allocated. */
static unsigned char *map_marks(void)
{
    char name[PATH_MAX + 8];
    unsigned char *made = MAP_FAILED;
    int fd;
    snprintf(name, sizeof name, "%s/reads", trace);
    fd = (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return 0;
    if (posix_fallocate(fd, 0, MARK_BYTES) == 0)
        made = mmap(0, MARK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    return made == MAP_FAILED ? 0 : made;
}

static void mark(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    unsigned char *map = atomic_load(&marks);
    uint32_t bit = crc32_of(path) & (MARK_BYTES * 8u - 1);
    size_t n = slash ? (size_t)(slash - path) : 0;
    memcpy(folder, path, n);
    folder[n] = 0;
    if (add(folders, FOLDERS, hash(folder, 0)))
        note("F", folder, 0, 0);
    if (!map) {
        map = map_marks();
        atomic_store(&marks, map);
    }
    if (map)
        map[bit >> 3] |= (unsigned char)(1u << (bit & 7));
}

/* --- what happens --------------------------------------------------------------------------------------------- */

static int holds_weights(const char *path)
{
    static const char *const suffixes[] = {".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".h5", ".hdf5", ".keras",
                                           ".npz", ".npy", ".onnx", ".gguf", ".distcp", 0};
    int i;
    for (i = 0; suffixes[i]; i++)
        if (ends(path, suffixes[i]))
            return 1;
    return 0;
}

static void noted_read(int folder, const char *given, int fd)
{
    char buffer[PATH_MAX], real[PATH_MAX];
    const char *path;
    struct stat info;
    uint64_t seed = given[0] == '/' ? 0 : atomic_load(&moves) * 2654435761u + (uint64_t)(folder + 200) * 40503u;
    uint64_t number = hash(given, seed);
    int is_full = atomic_load_explicit(&read_count, memory_order_relaxed) >= ALONE;
    if (folder == AT_FDCWD && is_known(reads, READS, number))
        return;
    if (given[0] == '/' && is_skipped(given))
        return;
    path = without_links(absolute(folder, given, buffer), fd, real);
    if (!path || is_skipped(path) || fstat(fd, &info) < 0 || !S_ISREG(info.st_mode))
        return;
    if (folder == AT_FDCWD && atomic_load_explicit(&name_count, memory_order_relaxed) < READS / 4 * 3) {
        atomic_fetch_add_explicit(&name_count, 1, memory_order_relaxed);
        if (!add(reads, READS, number))
            return; /* another thread was first */
    }
    if (is_full && !holds_weights(path)) {
        mark(path);
        return;
    }
    atomic_fetch_add_explicit(&read_count, 1, memory_order_relaxed);
    note("R", path, 0, 0);
}

static void noted_write(int folder, const char *given, int fd)
{
    char buffer[PATH_MAX], real[PATH_MAX];
    struct stat info;
    const char *path = without_links(absolute(folder, given, buffer), fd, real);
    uint64_t number;
    uint32_t slot, second = (uint32_t)(now_ms() / 1000);
    if (!path || is_skipped(path) || fstat(fd, &info) < 0 || !S_ISREG(info.st_mode))
        return;
    if (fd < DESCRIPTORS)
        atomic_store(&writing[fd], 1);
    number = hash(path, 0);
    slot = (uint32_t)(number >> 32) & (WRITES - 1);
    if (atomic_load(&written[slot]) == number && written_at[slot] == second)
        return;
    atomic_store(&written[slot], number);
    written_at[slot] = second;
    note("W", path, 0, 0);
}

static void opened(int folder, const char *path, int flags, int fd)
{
    int error = errno, mode = flags & O_ACCMODE;
    if (active > 0 && fd >= 0 && path && !(flags & (O_DIRECTORY | O_PATH))) {
        if (mode != O_WRONLY && !(flags & O_TRUNC) && !(flags & O_CREAT && flags & O_EXCL))
            noted_read(folder, path, fd);
        if (mode != O_RDONLY || flags & O_CREAT)
            noted_write(folder, path, fd);
    }
    errno = error;
}

static void moved(const char *kind, int from_folder, const char *from, int to_folder, const char *to)
{
    char first[PATH_MAX], second[PATH_MAX];
    int error = errno;
    const char *source = absolute(from_folder, from, first), *target = absolute(to_folder, to, second);
    if (active > 0 && source && target && !(is_skipped(source) && is_skipped(target)))
        note(kind, source, target, 0);
    errno = error;
}

static void removed(int folder, const char *given)
{
    char buffer[PATH_MAX];
    int error = errno;
    const char *path = active > 0 ? absolute(folder, given, buffer) : 0;
    if (path) {
        uint64_t number = hash(path, 0);
        if (atomic_load(&written[(uint32_t)(number >> 32) & (WRITES - 1)]) == number)
            note("D", path, 0, 0);
    }
    errno = error;
}

/* The name of a file that was written, just before it is closed: it may have been renamed meanwhile. 0 for others. */
static int name_of(int fd, char *buffer)
{
    char link[64];
    ssize_t size;
    int error = errno;
    if (active <= 0 || fd < 0 || fd >= DESCRIPTORS || !atomic_exchange(&writing[fd], 0))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, buffer, PATH_MAX - 1);
    buffer[size > 0 ? size : 0] = 0;
    errno = error;
    return size > 0 && buffer[0] == '/' && !ends(buffer, " (deleted)") && !is_skipped(buffer);
}

static void closed(const char *path)
{
    int error = errno;
    note("Z", path, 0, 0);
    errno = error;
}

/* --- Python without its hook ----------------------------------------------------------------------------------- */

typedef struct {
    uint32_t h[5];
    unsigned char block[64];
    uint64_t size;
} Sha1;

static void sha1_block(uint32_t h[5], const unsigned char *p)
{
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f, k, t;
    int i;
    for (i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (; i < 80; i++) {
        t = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16];
        w[i] = t << 1 | t >> 31;
    }
    for (i = 0; i < 80; i++) {
        if (i < 20)
            f = (b & c) | (~b & d), k = 0x5a827999;
        else if (i < 40)
            f = b ^ c ^ d, k = 0x6ed9eba1;
        else if (i < 60)
            f = (b & c) | (b & d) | (c & d), k = 0x8f1bbcdc;
        else
            f = b ^ c ^ d, k = 0xca62c1d6;
        t = (a << 5 | a >> 27) + f + e + k + w[i];
        e = d, d = c, c = b << 30 | b >> 2, b = a, a = t;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

static void sha1_add(Sha1 *s, const void *data, size_t size)
{
    const unsigned char *p = data;
    while (size--) {
        s->block[s->size++ & 63] = *p++;
        if (!(s->size & 63))
            sha1_block(s->h, s->block);
    }
}

/* What git calls a file with this content: FIPS 180-4 over "blob SIZE\0" and the content. */
static void blob_id(const char *data, size_t size, char hex[41])
{
    Sha1 s = {{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}, {0}, 0};
    char head[32];
    unsigned char length[8];
    uint64_t bits;
    int i;
    sha1_add(&s, head, (size_t)snprintf(head, sizeof head, "blob %zu", size) + 1);
    sha1_add(&s, data, size);
    bits = s.size * 8;
    sha1_add(&s, "\x80", 1);
    while ((s.size & 63) != 56)
        sha1_add(&s, "", 1);
    for (i = 0; i < 8; i++)
        length[i] = (unsigned char)(bits >> (56 - 8 * i));
    sha1_add(&s, length, 8);
    for (i = 0; i < 5; i++)
        snprintf(hex + 8 * i, 9, "%08x", (unsigned)s.h[i]);
}

/* CPython's functions, found in the program itself: https://docs.python.org/3/c-api/ */
static struct {
    void *(*item)(void *, ssize_t);
    const char *(*utf8)(void *, ssize_t *);
    int (*bytes)(void *, char **, ssize_t *);
    int (*is_instance)(void *, void *);
    void (*clear)(void);
    void *bytes_type, *text_type;
} python;

static void noted_code(const char *how, const char *given, const char *source, size_t size)
{
    char buffer[PATH_MAX], hex[41];
    const char *path = given[0] == '<' ? 0 : absolute(AT_FDCWD, given, buffer);
    if (!path || is_skipped(path))
        return;
    blob_id(source, size, hex);
    note("C", how, hex, path);
}

/* The main script, which Python reads without telling its source. */
static void noted_script(const char *path)
{
    struct stat info;
    char *content;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0 && info.st_size < 64 << 20) {
        content = mmap(0, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (content != MAP_FAILED) {
            noted_code("run", path, content, (size_t)info.st_size);
            munmap(content, (size_t)info.st_size);
        }
    }
    syscall(SYS_close, fd);
}

static int audit(const char *event, void *args, void *data)
{
    int error = errno;
    (void)data;
    if (active > 0 && args && strcmp(event, "compile") == 0) {
        void *source = python.item(args, 0), *name = python.item(args, 1);
        const char *path = 0, *text = 0;
        char *bytes = 0;
        ssize_t size = 0;
        if (source && name && python.is_instance(name, python.text_type) == 1)
            path = python.utf8(name, 0);
        if (path && python.is_instance(source, python.bytes_type) == 1 && python.bytes(source, &bytes, &size) == 0)
            noted_code("source", path, bytes, (size_t)size);
        else if (path && python.is_instance(source, python.text_type) == 1 && (text = python.utf8(source, &size)))
            noted_code("source", path, text, (size_t)size);
        if (!path || (!bytes && !text))
            python.clear();
    } else if (active > 0 && args && strcmp(event, "cpython.run_file") == 0) {
        void *name = python.item(args, 0);
        const char *path = name ? python.utf8(name, 0) : 0;
        if (path)
            noted_script(path);
        else
            python.clear();
    }
    errno = error;
    return 0;
}

static void begin_audit(void)
{
    int (*add_hook)(int (*)(const char *, void *, void *), void *);
    *(void **)&add_hook = dlsym(RTLD_DEFAULT, "PySys_AddAuditHook");
    *(void **)&python.item = dlsym(RTLD_DEFAULT, "PyTuple_GetItem");
    *(void **)&python.utf8 = dlsym(RTLD_DEFAULT, "PyUnicode_AsUTF8AndSize");
    *(void **)&python.bytes = dlsym(RTLD_DEFAULT, "PyBytes_AsStringAndSize");
    *(void **)&python.is_instance = dlsym(RTLD_DEFAULT, "PyObject_IsInstance");
    *(void **)&python.clear = dlsym(RTLD_DEFAULT, "PyErr_Clear");
    python.bytes_type = dlsym(RTLD_DEFAULT, "PyBytes_Type");
    python.text_type = dlsym(RTLD_DEFAULT, "PyUnicode_Type");
    if (add_hook && python.item && python.utf8 && python.bytes && python.is_instance && python.clear &&
        python.bytes_type && python.text_type)
        add_hook(audit, 0);
}

/* --- the beginning --------------------------------------------------------------------------------------------- */

static void forked(void)
{
    int i;
    if (active <= 0)
        return;
    owner = (pid_t)syscall(SYS_getpid);
    if (own_fd >= 0 && is_own())
        syscall(SYS_close, own_fd);
    own_fd = -1;
    own_name[0] = 0;
    torn = 0;
    for (i = 0; i < READS; i++)
        if (atomic_load_explicit(&reads[i], memory_order_relaxed))
            atomic_store_explicit(&reads[i], 0, memory_order_relaxed);
    for (i = 0; i < FOLDERS; i++)
        atomic_store_explicit(&folders[i], 0, memory_order_relaxed);
    for (i = 0; i < WRITES; i++)
        atomic_store_explicit(&written[i], 0, memory_order_relaxed);
    atomic_store(&read_count, 0);
    atomic_store(&name_count, 0);
    note_process();
}

__attribute__((constructor)) static void begin(void)
{
    static const char *const ours = "/.mllaunch/trace";
    const char *folder = getenv("MLLAUNCH_TRACE"), *root = getenv("MLLAUNCH_CODE");
    int error = errno;
    struct stat info;
    if (!folder || !folder[0])
        folder = stat(ours, &info) == 0 ? ours : 0;
    if (!folder || strlen(folder) >= PATH_MAX - 64 || getenv("MLLAUNCH_AGENT")) {
        active = -1;
    } else {
        strcpy(trace, folder);
        if (root && strlen(root) < PATH_MAX - 2) {
            strcpy(code, root);
            strcat(code, "/");
        }
        owner = (pid_t)syscall(SYS_getpid);
        active = 1;
        note_process();
        pthread_atfork(0, 0, forked);
        begin_audit();
    }
    errno = error;
}

/* --- the functions that are stood in for ------------------------------------------------------------------------ */

#define REAL(type, name, parameters)                                                                                   \
    static type(*real) parameters;                                                                                     \
    if (!real)                                                                                                         \
        *(void **)&real = dlsym(RTLD_NEXT, name)

#define MODE                                                                                                           \
    mode_t mode = 0;                                                                                                   \
    if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {                                                         \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }

#define OPEN(function)                                                                                                 \
    int function(const char *path, int flags, ...)                                                                     \
    {                                                                                                                  \
        int fd;                                                                                                        \
        MODE REAL(int, #function, (const char *, int, ...));                                                           \
        fd = real(path, flags, mode);                                                                                  \
        opened(AT_FDCWD, path, flags, fd);                                                                             \
        return fd;                                                                                                     \
    }

#define OPENAT(function)                                                                                               \
    int function(int folder, const char *path, int flags, ...)                                                         \
    {                                                                                                                  \
        int fd;                                                                                                        \
        MODE REAL(int, #function, (int, const char *, int, ...));                                                      \
        fd = real(folder, path, flags, mode);                                                                          \
        opened(folder, path, flags, fd);                                                                               \
        return fd;                                                                                                     \
    }

/* The form that a compiler uses where it checks the arguments: glibc's bits/fcntl2.h. */
#define CHECKED(function)                                                                                              \
    int function(const char *path, int flags)                                                                          \
    {                                                                                                                  \
        int fd;                                                                                                        \
        REAL(int, #function, (const char *, int));                                                                     \
        fd = real(path, flags);                                                                                        \
        opened(AT_FDCWD, path, flags, fd);                                                                             \
        return fd;                                                                                                     \
    }

#define CHECKEDAT(function)                                                                                            \
    int function(int folder, const char *path, int flags)                                                              \
    {                                                                                                                  \
        int fd;                                                                                                        \
        REAL(int, #function, (int, const char *, int));                                                                \
        fd = real(folder, path, flags);                                                                                \
        opened(folder, path, flags, fd);                                                                               \
        return fd;                                                                                                     \
    }

#define CREAT(function)                                                                                                \
    int function(const char *path, mode_t mode)                                                                        \
    {                                                                                                                  \
        int fd;                                                                                                        \
        REAL(int, #function, (const char *, mode_t));                                                                  \
        fd = real(path, mode);                                                                                         \
        opened(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, fd);                                                      \
        return fd;                                                                                                     \
    }

static int flags_of(const char *mode)
{
    int flags = mode[0] == 'w' ? O_CREAT | O_TRUNC : mode[0] == 'a' ? O_CREAT : 0;
    if (strchr(mode, '+'))
        return flags | O_RDWR;
    return flags | (mode[0] == 'r' ? O_RDONLY : O_WRONLY);
}

#define FOPEN(function)                                                                                                \
    FILE *function(const char *path, const char *mode)                                                                 \
    {                                                                                                                  \
        FILE *file;                                                                                                    \
        REAL(FILE *, #function, (const char *, const char *));                                                         \
        file = real(path, mode);                                                                                       \
        if (file)                                                                                                      \
            opened(AT_FDCWD, path, flags_of(mode), fileno(file));                                                      \
        return file;                                                                                                   \
    }

#define FREOPEN(function)                                                                                              \
    FILE *function(const char *path, const char *mode, FILE *before)                                                   \
    {                                                                                                                  \
        FILE *file;                                                                                                    \
        REAL(FILE *, #function, (const char *, const char *, FILE *));                                                 \
        file = real(path, mode, before);                                                                               \
        if (file && path)                                                                                              \
            opened(AT_FDCWD, path, flags_of(mode), fileno(file));                                                      \
        return file;                                                                                                   \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
CHECKED(__open_2)
CHECKED(__open64_2)
CHECKEDAT(__openat_2)
CHECKEDAT(__openat64_2)
CREAT(creat)
CREAT(creat64)
FOPEN(fopen)
FOPEN(fopen64)
FREOPEN(freopen)
FREOPEN(freopen64)

int close(int fd)
{
    char path[PATH_MAX];
    int result, was_written = name_of(fd, path);
    REAL(int, "close", (int));
    result = real(fd);
    if (was_written)
        closed(path);
    return result;
}

int fclose(FILE *file)
{
    char path[PATH_MAX];
    int result, was_written = name_of(file ? fileno(file) : -1, path);
    REAL(int, "fclose", (FILE *));
    result = real(file);
    if (was_written)
        closed(path);
    return result;
}

#define TWO(function, kind)                                                                                            \
    int function(const char *from, const char *to)                                                                     \
    {                                                                                                                  \
        int result;                                                                                                    \
        REAL(int, #function, (const char *, const char *));                                                            \
        result = real(from, to);                                                                                       \
        if (result == 0)                                                                                               \
            moved(kind, AT_FDCWD, from, AT_FDCWD, to);                                                                 \
        return result;                                                                                                 \
    }

TWO(rename, "M")
TWO(link, "K")

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    int result;
    REAL(int, "renameat", (int, const char *, int, const char *));
    result = real(from_folder, from, to_folder, to);
    if (result == 0)
        moved("M", from_folder, from, to_folder, to);
    return result;
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned int flags)
{
    int result;
    REAL(int, "renameat2", (int, const char *, int, const char *, unsigned int));
    result = real(from_folder, from, to_folder, to, flags);
    if (result == 0)
        moved("M", from_folder, from, to_folder, to);
    return result;
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    int result;
    REAL(int, "linkat", (int, const char *, int, const char *, int));
    result = real(from_folder, from, to_folder, to, flags);
    if (result == 0)
        moved("K", from_folder, from, to_folder, to);
    return result;
}

int unlink(const char *path)
{
    int result;
    REAL(int, "unlink", (const char *));
    result = real(path);
    if (result == 0)
        removed(AT_FDCWD, path);
    return result;
}

int unlinkat(int folder, const char *path, int flags)
{
    int result;
    REAL(int, "unlinkat", (int, const char *, int));
    result = real(folder, path, flags);
    if (result == 0)
        removed(folder, path);
    return result;
}

int chdir(const char *path)
{
    REAL(int, "chdir", (const char *));
    atomic_fetch_add(&moves, 1);
    return real(path);
}

int fchdir(int fd)
{
    REAL(int, "fchdir", (int));
    atomic_fetch_add(&moves, 1);
    return real(fd);
}

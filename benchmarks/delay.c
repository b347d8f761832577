/* A read-only view of a directory in which every request waits, as on a network file system.

     delay SOURCE MOUNTPOINT MICROSECONDS attributes|plain

   Speaks the kernel's FUSE protocol itself: needs root and no library. Listing a directory tells the attributes of
   what is in it (as NFS's READDIRPLUS does), and the kernel keeps them for an hour. `plain`: there are no extended
   attributes, and the kernel does not ask for them. Writes a line when it is mounted; ends when its input ends. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 64, BUCKETS = 1 << 20, REQUEST = 256 << 10, ANSWER = 1 << 20, HOUR = 3600 };

struct object { /* what the kernel has heard of; never forgotten */
    struct object *next;
    uint64_t inode, parent;
    char name[];
};

static struct object *objects[BUCKETS];
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static int device, with_attributes;
static long delay_ns;

static struct object *find(uint64_t inode) {
    struct object *found = objects[inode % BUCKETS];
    while (found && found->inode != inode) found = found->next;
    return found;
}

static void learn(uint64_t inode, uint64_t parent, const char *name) {
    pthread_rwlock_rdlock(&lock);
    struct object *found = find(inode);
    pthread_rwlock_unlock(&lock);
    if (found) return;
    pthread_rwlock_wrlock(&lock);
    if (!find(inode)) {
        struct object *made = malloc(sizeof *made + strlen(name) + 1);
        made->inode = inode, made->parent = parent, made->next = objects[inode % BUCKETS];
        strcpy(made->name, name);
        objects[inode % BUCKETS] = made;
    }
    pthread_rwlock_unlock(&lock);
}

/* The path of an object below the source, which is the working directory; NULL when it is not known or too long. */
static const char *path_of(uint64_t node, const char *last, char buffer[PATH_MAX]) {
    char *at = buffer + PATH_MAX - 1;
    *at = 0;
    if (last) at -= strlen(last), memcpy(at, last, strlen(last));
    pthread_rwlock_rdlock(&lock);
    while (node != FUSE_ROOT_ID) {
        struct object *found = find(node);
        size_t length = found ? strlen(found->name) : 0;
        if (!found || (size_t)(at - buffer) < length + 1) {
            pthread_rwlock_unlock(&lock);
            return NULL;
        }
        if (*at) *--at = '/';
        at -= length, memcpy(at, found->name, length);
        node = found->parent;
    }
    pthread_rwlock_unlock(&lock);
    return *at ? at : ".";
}

static void answer(uint64_t unique, int error, const void *data, size_t size) {
    struct fuse_out_header head = {.len = sizeof head + (error ? 0 : size), .error = -error, .unique = unique};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)data, size}};
    if (writev(device, parts, error ? 1 : 2) < 0 && errno != ENOENT) perror("delay: answer");
}

static void tell(struct fuse_attr *told, const struct stat *found) {
    *told = (struct fuse_attr){
        .ino = found->st_ino, .size = found->st_size, .blocks = found->st_blocks, .atime = found->st_atim.tv_sec,
        .mtime = found->st_mtim.tv_sec, .ctime = found->st_ctim.tv_sec, .atimensec = found->st_atim.tv_nsec,
        .mtimensec = found->st_mtim.tv_nsec, .ctimensec = found->st_ctim.tv_nsec, .mode = found->st_mode,
        .nlink = found->st_nlink, .uid = found->st_uid, .gid = found->st_gid, .rdev = found->st_rdev,
        .blksize = found->st_blksize};
}

static void tell_entry(struct fuse_entry_out *told, const struct stat *found) {
    *told = (struct fuse_entry_out){.nodeid = found->st_ino, .entry_valid = HOUR, .attr_valid = HOUR};
    tell(&told->attr, found);
}

/* Fill `out` with entries from `offset` on; return the bytes used. */
static size_t list(DIR *directory, uint64_t node, uint64_t offset, int plus, char *out, size_t room) {
    size_t used = 0;
    struct dirent *entry;
    seekdir(directory, offset);
    while ((entry = readdir(directory))) {
        size_t length = strlen(entry->d_name);
        size_t size = FUSE_DIRENT_ALIGN((plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET) + length);
        if (used + size > room) break;
        memset(out + used, 0, size);
        struct fuse_direntplus *both = (void *)(out + used);
        struct fuse_dirent *told = plus ? &both->dirent : (void *)both;
        struct stat found;
        if (plus && strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")
            && !fstatat(dirfd(directory), entry->d_name, &found, AT_SYMLINK_NOFOLLOW)) {
            learn(found.st_ino, node, entry->d_name);
            tell_entry(&both->entry_out, &found);
        }
        told->ino = entry->d_ino, told->off = entry->d_off, told->namelen = length, told->type = entry->d_type;
        memcpy(told->name, entry->d_name, length);
        used += size;
    }
    return used;
}

static void start(const struct fuse_in_header *head, const struct fuse_init_in *in) {
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION, .max_readahead = in->max_readahead,
        .flags = in->flags & (FUSE_ASYNC_READ | FUSE_PARALLEL_DIROPS | FUSE_DO_READDIRPLUS | FUSE_MAX_PAGES),
        .max_background = THREADS, .congestion_threshold = THREADS, .max_write = REQUEST / 2, .time_gran = 1,
        .max_pages = ANSWER / 4096};
    answer(head->unique, 0, &out, sizeof out);
}

static void attributes(const struct fuse_in_header *head, const char *path, size_t room, const char *name, char *out) {
    ssize_t size = name ? lgetxattr(path, name, out, room ? ANSWER : 0) : llistxattr(path, out, room ? ANSWER : 0);
    struct fuse_getxattr_out told = {.size = size};
    if (size < 0) answer(head->unique, errno, NULL, 0);
    else if (!room) answer(head->unique, 0, &told, sizeof told);
    else answer(head->unique, (size_t)size > room ? ERANGE : 0, out, size);
}

static void serve(const struct fuse_in_header *head, void *in, char *out) {
    char buffer[PATH_MAX];
    struct stat found;
    const struct fuse_read_in *reading = in;
    switch (head->opcode) {
    case FUSE_INIT: start(head, in); return;
    case FUSE_FORGET: case FUSE_BATCH_FORGET: case FUSE_INTERRUPT: return;
    case FUSE_RELEASE: close(((struct fuse_release_in *)in)->fh); answer(head->unique, 0, NULL, 0); return;
    case FUSE_RELEASEDIR: closedir((DIR *)((struct fuse_release_in *)in)->fh); answer(head->unique, 0, NULL, 0); return;
    case FUSE_LOOKUP: case FUSE_GETATTR: case FUSE_READLINK: case FUSE_OPEN: case FUSE_OPENDIR: case FUSE_READ:
    case FUSE_READDIR: case FUSE_READDIRPLUS: case FUSE_STATFS: break;
    case FUSE_GETXATTR: case FUSE_LISTXATTR: if (with_attributes) break; /* fall through */
    default: answer(head->unique, ENOSYS, NULL, 0); return;
    }
    if (head->opcode != FUSE_OPENDIR) /* over the network there is no such request */
        nanosleep(&(struct timespec){.tv_nsec = delay_ns}, NULL);
    const char *path = path_of(head->nodeid, head->opcode == FUSE_LOOKUP ? in : NULL, buffer);
    if (!path) { answer(head->unique, ENOENT, NULL, 0); return; }
    switch (head->opcode) {
    case FUSE_LOOKUP: {
        struct fuse_entry_out told;
        if (lstat(path, &found)) { answer(head->unique, errno, NULL, 0); return; }
        learn(found.st_ino, head->nodeid, in);
        tell_entry(&told, &found);
        answer(head->unique, 0, &told, sizeof told);
        return;
    }
    case FUSE_GETATTR: {
        struct fuse_attr_out told = {.attr_valid = HOUR};
        if (lstat(path, &found)) { answer(head->unique, errno, NULL, 0); return; }
        tell(&told.attr, &found);
        answer(head->unique, 0, &told, sizeof told);
        return;
    }
    case FUSE_READLINK: {
        ssize_t size = readlink(path, out, ANSWER);
        answer(head->unique, size < 0 ? errno : 0, out, size);
        return;
    }
    case FUSE_OPEN: {
        int file = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        struct fuse_open_out told = {.fh = file, .open_flags = FOPEN_KEEP_CACHE};
        answer(head->unique, file < 0 ? errno : 0, &told, sizeof told);
        return;
    }
    case FUSE_OPENDIR: {
        DIR *directory = opendir(path);
        struct fuse_open_out told = {.fh = (uintptr_t)directory};
        answer(head->unique, directory ? 0 : errno, &told, sizeof told);
        return;
    }
    case FUSE_READ: {
        ssize_t size = pread(reading->fh, out, reading->size < ANSWER ? reading->size : ANSWER, reading->offset);
        answer(head->unique, size < 0 ? errno : 0, out, size);
        return;
    }
    case FUSE_READDIR: case FUSE_READDIRPLUS: {
        size_t room = reading->size < ANSWER ? reading->size : ANSWER;
        int plus = head->opcode == FUSE_READDIRPLUS;
        answer(head->unique, 0, out, list((DIR *)reading->fh, head->nodeid, reading->offset, plus, out, room));
        return;
    }
    case FUSE_STATFS: {
        struct fuse_statfs_out told = {.st = {.bsize = 4096, .frsize = 4096, .namelen = 255}};
        answer(head->unique, 0, &told, sizeof told);
        return;
    }
    case FUSE_GETXATTR: case FUSE_LISTXATTR: {
        const struct fuse_getxattr_in *asked = in;
        attributes(head, path, asked->size, head->opcode == FUSE_GETXATTR ? (char *)(asked + 1) : NULL, out);
    }
    }
}

static void *run(void *unused) {
    char *in = malloc(REQUEST), *out = malloc(ANSWER);
    prctl(PR_SET_TIMERSLACK, 1000); /* sleep as long as was said */
    for (;;) {
        ssize_t size = read(device, in, REQUEST);
        if (size < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) continue;
        if (size < 0) return unused;
        serve((void *)in, in + sizeof(struct fuse_in_header), out);
    }
}

int main(int count, char **arguments) {
    char options[128], byte;
    pthread_t thread;
    if (count != 5) return 2;
    delay_ns = atol(arguments[3]) * 1000;
    with_attributes = !strcmp(arguments[4], "attributes");
    if ((device = open("/dev/fuse", O_RDWR | O_CLOEXEC)) < 0) return perror("/dev/fuse"), 1;
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device);
    if (mount("delay", arguments[2], "fuse", MS_RDONLY | MS_NOSUID | MS_NODEV, options)) return perror("mount"), 1;
    if (chdir(arguments[1])) return perror(arguments[1]), umount2(arguments[2], MNT_DETACH), 1;
    for (int number = 0; number < THREADS; number++) pthread_create(&thread, NULL, run, NULL);
    puts("mounted");
    fflush(stdout);
    while (read(0, &byte, 1) > 0) {}
    return umount2(arguments[2], MNT_DETACH) ? (perror("umount"), 1) : 0;
}

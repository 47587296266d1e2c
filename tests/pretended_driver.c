/* A CUDA driver without a device: memory is the host's, kernels do nothing.

   It refuses what NVIDIA's refuses: calls without a current context, and handles or memory of another one. What waits
   and what is queued, and on which stream, is written to standard output. It has the functions that streamloss and
   Numba call; any other answers "not supported". */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK, INVALID_VALUE, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201 };
enum { INVALID_HANDLE = 400, NOT_SUPPORTED = 801, DEVICES = 2, MOST = 4096 };
enum { STREAM = 1001, EVENT, MODULE, FUNCTION };

typedef struct { int device; } Context;
typedef struct { int kind; Context *context; } Object;
typedef struct { uint64_t address; size_t size; Context *context; } Memory;

static Context contexts[DEVICES] = {{0}, {1}};
static Memory memories[MOST];
static int initialised, known;
static __thread Context *stack[64];
static __thread int depth;

static Context *current(void) { return depth ? stack[depth - 1] : NULL; }
static int capturing(void) { return getenv("PRETEND_CAPTURE") != NULL; }

#define SAY(...) (printf(__VA_ARGS__), fflush(stdout))
#define NEEDS_CONTEXT do { if (!initialised) return NOT_INITIALIZED; if (!current()) return INVALID_CONTEXT; } while (0)
#define NEEDS(object, sort) do { if (!is((void *)(object), sort)) return INVALID_HANDLE; } while (0)
#define NEEDS_MEMORY(address, size) do { if (!holds(address, size)) return INVALID_VALUE; } while (0)

static int is(void *handle, int kind) {
    if (kind == STREAM && (uintptr_t)handle <= 2) return 1; /* the default streams */
    Object *object = handle;
    return object && object->kind == kind && object->context == current();
}

static Memory *memory(uint64_t address, size_t size) {
    for (int i = 0; i < known; i++)
        if (address >= memories[i].address && address + size <= memories[i].address + memories[i].size)
            return memories + i;
    return NULL;
}

static int holds(uint64_t address, size_t size) {
    Memory *found = memory(address, size);
    return found && found->context == current();
}

static int make(void **handle, int kind) {
    Object *object = malloc(sizeof *object);
    *object = (Object){kind, current()};
    *handle = object;
    return OK;
}

static int take(uint64_t *address, size_t size) {
    void *room = NULL;
    if (!size || known == MOST || posix_memalign(&room, 512, size)) return INVALID_VALUE;
    memset(room, 0xAA, size);
    memories[known++] = (Memory){*address = (uint64_t)room, size, current()};
    return OK;
}

/* Devices and contexts */

int cuInit(unsigned flags) { initialised = 1; return flags ? INVALID_VALUE : OK; }
int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
int cuDeviceGetCount(int *count) { *count = DEVICES; return initialised ? OK : NOT_INITIALIZED; }
int cuDeviceGet(int *device, int n) { *device = n; return n >= 0 && n < DEVICES ? OK : INVALID_DEVICE; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "pretended %d", device); return OK; }
int cuDeviceGetUuid(char *uuid, int device) { memset(uuid, device + 1, 16); return OK; }
int cuDeviceGetAttribute(int *value, int which, int device) {
    enum { PROCESSORS = 16, MAJOR = 75, MINOR = 76 };
    *value = which == PROCESSORS ? 132 : which == MAJOR ? 9 : which == MINOR ? 0 : 1;
    return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = contexts + device; return OK; }
int cuDevicePrimaryCtxRelease(int device) { return OK; }
int cuCtxPushCurrent(void *context) { stack[depth++] = context; return OK; }
int cuCtxPopCurrent(void **context) { *context = depth ? stack[--depth] : NULL; return *context ? OK : INVALID_CONTEXT; }
int cuCtxGetCurrent(void **context) { *context = current(); return OK; }
int cuCtxSetCurrent(void *context) { if (!depth) depth = 1; stack[depth - 1] = context; return OK; }
int cuCtxGetDevice(int *device) { NEEDS_CONTEXT; *device = current()->device; return OK; }
int cuCtxSynchronize(void) { NEEDS_CONTEXT; SAY("wait for device %d\n", current()->device); return OK; }
int cuGetErrorName(int error, const char **name) { *name = "PRETENDED"; return OK; }
int cuGetErrorString(int error, const char **text) { static char s[9]; sprintf(s, "%d", error); *text = s; return OK; }

/* Memory */

int cuMemAlloc(uint64_t *address, size_t size) { NEEDS_CONTEXT; return take(address, size); }
int cuMemFree(uint64_t address) { NEEDS_CONTEXT; NEEDS_MEMORY(address, 1); return OK; }
int cuMemGetInfo(size_t *free, size_t *total) { NEEDS_CONTEXT; *free = *total = (size_t)1 << 37; return OK; }
int cuMemAllocAsync(uint64_t *address, size_t size, void *stream) {
    NEEDS_CONTEXT;
    NEEDS(stream, STREAM);
    return take(address, size);
}
int cuMemFreeAsync(uint64_t address, void *stream) {
    NEEDS_CONTEXT;
    NEEDS(stream, STREAM);
    NEEDS_MEMORY(address, 1);
    return OK;
}
int cuMemHostAlloc(void **address, size_t size, unsigned flags) {
    NEEDS_CONTEXT;
    *address = malloc(size);
    return OK;
}
int cuMemsetD8Async(uint64_t address, unsigned char value, size_t size, void *stream) {
    NEEDS_CONTEXT;
    NEEDS(stream, STREAM);
    NEEDS_MEMORY(address, size);
    memset((void *)address, value, size);
    return OK;
}
int cuMemcpyDtoH(void *to, uint64_t from, size_t size) {
    NEEDS_CONTEXT;
    NEEDS_MEMORY(from, size);
    memcpy(to, (void *)from, size);
    SAY("copy to the host\n");
    return OK;
}
int cuMemcpyHtoD(uint64_t to, const void *from, size_t size) {
    NEEDS_CONTEXT;
    NEEDS_MEMORY(to, size);
    memcpy((void *)to, from, size);
    return OK;
}
int cuMemcpyHtoDAsync(uint64_t to, const void *from, size_t size, void *stream) {
    NEEDS(stream, STREAM);
    return cuMemcpyHtoD(to, from, size);
}
int cuMemcpyDtoHAsync(void *to, uint64_t from, size_t size, void *stream) {
    NEEDS(stream, STREAM);
    return cuMemcpyDtoH(to, from, size);
}
int cuPointerGetAttribute(void *value, int which, uint64_t address) {
    enum { ORDINAL = 9 };
    Memory *found = memory(address, 1);
    if (!found || which != ORDINAL) return INVALID_VALUE;
    *(int *)value = found->context->device;
    return OK;
}

/* Kernels, streams, events */

int cuModuleLoadData(void **module, const char *image) {
    NEEDS_CONTEXT;
    return memcmp(image, "\177ELF", 4) ? INVALID_VALUE : make(module, MODULE);
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
    NEEDS(module, MODULE);
    return make(function, FUNCTION);
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t shared) {
    NEEDS_CONTEXT;
    NEEDS(function, FUNCTION);
    *blocks = 2;
    return OK;
}
int cuLaunchKernel(void *function, unsigned blocks, unsigned y, unsigned z, unsigned threads, unsigned ty, unsigned tz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
    NEEDS_CONTEXT;
    NEEDS(function, FUNCTION);
    NEEDS(stream, STREAM);
    if (!blocks || y != 1 || z != 1 || !threads || threads > 1024 || ty != 1 || tz != 1 || shared || extra)
        return INVALID_VALUE;
    SAY((uintptr_t)stream > 2 ? "launch on its own\n" : "launch on %d\n", (int)(uintptr_t)stream);
    return OK;
}
int cuStreamCreate(void **stream, unsigned flags) { NEEDS_CONTEXT; return make(stream, STREAM); }
int cuStreamDestroy(void *stream) { NEEDS(stream, STREAM); return OK; }
int cuStreamSynchronize(void *stream) { NEEDS(stream, STREAM); return OK; }
int cuStreamIsCapturing(void *stream, int *status) { NEEDS(stream, STREAM); *status = capturing(); return OK; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    NEEDS(stream, STREAM);
    NEEDS(event, EVENT);
    SAY("%d waits\n", (int)(uintptr_t)stream);
    return OK;
}
int cuEventCreate(void **event, unsigned flags) { NEEDS_CONTEXT; return make(event, EVENT); }
int cuEventDestroy(void *event) { return OK; }
int cuEventQuery(void *event) { return OK; }
int cuEventSynchronize(void *event) { return OK; }
int cuEventRecord(void *event, void *stream) {
    NEEDS(stream, STREAM);
    NEEDS(event, EVENT);
    SAY("record %d\n", (int)(uintptr_t)stream);
    return OK;
}

/* How cuda-bindings finds the rest: names have no version there, since all here have the newest form. */

static int not_supported(void) { return NOT_SUPPORTED; }

int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    static void *self;
    Dl_info info;
    if (!self && dladdr((void *)cuInit, &info)) self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    *function = dlsym(self, name);
    if (!*function) *function = (void *)not_supported;
    return OK;
}

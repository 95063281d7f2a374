/* libcudnn: the real library chooses, nothing is executed.
 *
 * PyTorch asks cuDNN's heuristics for an execution plan and allocates the workspace that the plan
 * wants. Both are answered by the cuDNN that torch brought along, which takes a description of a
 * device in place of a handle ("Deviceless ahead-of-time compilation", cuDNN documentation).
 *
 * It lives in a namespace of its own (dlmopen): there it finds the real cuBLASLt, whose answers
 * decide some workspaces, and no CUDA driver, so that it does not try to use one.
 */
#define _GNU_SOURCE
#include "card.h"
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

/* Enumerators of cudnn_graph.h (cuDNN 9). */
enum { HEURISTICS = 4, PLAN = 5, DEVICE = 38 };
enum { OF_HEURISTICS = 204, OF_PLAN = 407, JSON_OF_DEVICE = 2702 };
enum { TYPE_HANDLE = 0, TYPE_DESCRIPTOR = 15, TYPE_CHAR = 24 };

static void *library, *device;
static int (*create)(int, void **), (*finalize)(void *);
static int (*set)(void *, int, int, int64_t, const void *);

static void describe_the_card(void) {
    char text[1024];
    snprintf(text, sizeof text,
             "{\"deviceVer\":%d,\"multiProcessorCount\":%d,\"maxSharedMemoryPerBlockOptin\":%d,%s}",
             100 * CARD_MAJOR + 10 * CARD_MINOR, CARD_MULTIPROCESSORS, CARD_SHARED_BYTES,
             "\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"
             "\"regsPerBlock\":65536,\"maxRegistersPerSM\":65536,\"warpSize\":32,"
             "\"smCountOrigin\":0,\"maxCtasPerSM\":16,\"maxThreadsPerBlock\":1024,"
             "\"maxThreadsPerSM\":1536,\"supportCoopLaunch\":1,"
             "\"maxSharedMemoryPerBlock\":49152,\"reservedSharedMemoryPerBlock\":1024,"
             "\"oversizedSharedMemoryPerBlock\":0,\"l2CacheSize\":4194304,"
             "\"totalGlobalMem\":12884901888,\"smClockRateKHz\":1700000,"
             "\"memClockRateKHz\":7500000,\"driverVer\":13000,\"pciDeviceId\":0,"
             "\"cudaDeviceId\":0,\"isTccDriver\":0,\"deviceName\":\"GPU\"");
    if (create(DEVICE, &device) || set(device, JSON_OF_DEVICE, TYPE_CHAR, strlen(text), text) ||
        finalize(device)) {
        fprintf(stderr, "memfit: cuDNN does not take the description of this GPU\n");
        abort();
    }
}

static void load(void) {
    const char *path = getenv("MEMFIT_CUDNN");
    library = path ? dlmopen(LM_ID_NEWLM, path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!library) {
        fprintf(stderr, "memfit: cuDNN cannot be loaded: %s\n", path ? dlerror() : "no path");
        abort();
    }
    /* A GPU that is there is not the one that is described: its namespace must see none. */
    int (*set_variable)(const char *, const char *, int) = dlsym(library, "setenv");
    if (set_variable) set_variable("CUDA_VISIBLE_DEVICES", "", 1);
    create = dlsym(library, "cudnnBackendCreateDescriptor");
    finalize = dlsym(library, "cudnnBackendFinalize");
    set = dlsym(library, "cudnnBackendSetAttribute");
    describe_the_card();
}

/* A function of the real library; the generated part passes descriptor functions on to it. */
void *memfit_real(const char *name) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return dlsym(library, name);
}

#define REAL(name, result, ...) ((result(*)(__VA_ARGS__))memfit_real(#name))

int cudnnCreate(void **handle) { *handle = calloc(1, 1 << 16); return 0; }
int cudnnDestroy(void *handle) { free(handle); return 0; }
int cudnnGetStream(void *handle, void **stream) { *stream = 0; return 0; }

int cudnnBackendCreateDescriptor(int type, void **descriptor) {
    int status = REAL(cudnnBackendCreateDescriptor, int, int, void **)(type, descriptor);
    if (!status && type == HEURISTICS)
        status = set(*descriptor, OF_HEURISTICS, TYPE_DESCRIPTOR, 1, &device);
    if (!status && type == PLAN) status = set(*descriptor, OF_PLAN, TYPE_DESCRIPTOR, 1, &device);
    return status;
}
int cudnnBackendSetAttribute(void *descriptor, int name, int type, int64_t count,
                             const void *values) {
    if (type == TYPE_HANDLE) return 0; /* the description stands in its place */
    return REAL(cudnnBackendSetAttribute, int, void *, int, int, int64_t, const void *)(
        descriptor, name, type, count, values);
}
int cudnnBackendExecute(void *handle, void *plan, void *pointers) { return 0; }

size_t cudnnGetCudartVersion(void) { return CUDA_VERSION; }

/* -- sizes that the real library gives only with a device -------------------------------------- */

/* Contiguous images need no workspace; what channels-last ones take is not published. */
int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(
    void *handle, int mode, int operations, void *x, void *z, void *y, void *scale, void *activation,
    size_t *bytes) {
    *bytes = 0;
    return 0;
}
int cudnnGetBatchNormalizationBackwardExWorkspaceSize(
    void *handle, int mode, int operations, void *x, void *y, void *dy, void *dz, void *dx,
    void *scale, void *activation, size_t *bytes) {
    *bytes = 0;
    return 0;
}
/* Kept from forward for backward by fused activations only, which PyTorch does not ask for. */
int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(
    void *handle, int mode, int operations, void *activation, void *x, size_t *bytes) {
    *bytes = 0;
    return 0;
}

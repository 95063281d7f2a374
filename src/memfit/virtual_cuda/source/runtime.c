/* libcudart: a GPU that has memory and launches nothing.
 *
 * Device memory is address space of this process: mapped, never reserved, counted against the
 * card's capacity. What does not fit is cudaErrorMemoryAllocation, so that PyTorch's own caching
 * allocator releases, retries and raises its own error.
 */
#define _GNU_SOURCE
#include "card.h"
#include <driver_types.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101 };

/* What cudaMalloc hands out in: see "granularity" of the CUDA driver's virtual memory management. */
static const uint64_t GRANULE = 2 << 20;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread int last_error, current_device;

static int failed(int error) {
    last_error = error;
    return error;
}

static uint64_t rounded(uint64_t bytes) { return (bytes + GRANULE - 1) / GRANULE * GRANULE; }

/* -- the card ------------------------------------------------------------------------------- */

static uint64_t total_bytes, context_bytes, copied_bytes;
static int device_count;

__attribute__((constructor)) static void read_the_card(void) {
    total_bytes = described("MEMFIT_CARD_BYTES", 12ull << 30);
    context_bytes = described("MEMFIT_CARD_CONTEXT_BYTES", 0);
    copied_bytes = described("MEMFIT_COPIED_BYTES", 1 << 20);
    device_count = (int)described("MEMFIT_CARD_COUNT", 1);
}

int cudaGetDeviceCount(int *count) { *count = device_count; return OK; }
int cudaGetDevice(int *device) { *device = current_device; return OK; }
int cudaSetDevice(int device) {
    if (device < 0 || device >= device_count) return failed(INVALID_DEVICE);
    current_device = device;
    return OK;
}
int cudaDriverGetVersion(int *version) { *version = CUDA_VERSION; return OK; }
int cudaRuntimeGetVersion(int *version) { *version = CUDA_VERSION; return OK; }
int cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; return OK; }
int cudaDeviceGetPCIBusId(char *text, int length, int device) {
    snprintf(text, length, "0000:%02x:00.0", device + 1);
    return OK;
}
int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return OK;
}

static int properties_of(struct cudaDeviceProp *card, int device) {
    if (device < 0 || device >= device_count) return failed(INVALID_DEVICE);
    const char *name = getenv("MEMFIT_CARD_NAME");
    memset(card, 0, sizeof *card);
    snprintf(card->name, sizeof card->name, "%s", name ? name : "virtual GPU");
    card->major = CARD_MAJOR;
    card->minor = CARD_MINOR;
    card->multiProcessorCount = CARD_MULTIPROCESSORS;
    card->totalGlobalMem = total_bytes;
    card->sharedMemPerBlock = 48 << 10;
    card->sharedMemPerBlockOptin = CARD_SHARED_BYTES;
    card->sharedMemPerMultiprocessor = CARD_SHARED_BYTES + 1024;
    card->reservedSharedMemPerBlock = 1024;
    card->maxThreadsPerMultiProcessor = CARD_THREADS;
    card->maxBlocksPerMultiProcessor = 16;
    card->regsPerBlock = card->regsPerMultiprocessor = 65536;
    card->warpSize = 32;
    card->maxThreadsPerBlock = 1024;
    card->maxThreadsDim[0] = card->maxThreadsDim[1] = 1024;
    card->maxThreadsDim[2] = 64;
    card->maxGridSize[0] = INT32_MAX;
    card->maxGridSize[1] = card->maxGridSize[2] = 65535;
    card->memPitch = INT32_MAX;
    card->totalConstMem = 65536;
    card->textureAlignment = 512;
    card->texturePitchAlignment = 32;
    card->l2CacheSize = 4 << 20;
    card->memoryBusWidth = 256;
    card->asyncEngineCount = 2;
    card->pciBusID = device + 1;
    card->concurrentKernels = card->unifiedAddressing = card->managedMemory = 1;
    card->cooperativeLaunch = card->streamPrioritiesSupported = 1;
    card->globalL1CacheSupported = card->localL1CacheSupported = 1;
    return OK;
}
int cudaGetDeviceProperties(struct cudaDeviceProp *card, int device) {
    return properties_of(card, device);
}
int cudaGetDeviceProperties_v2(struct cudaDeviceProp *card, int device) {
    return properties_of(card, device);
}

int cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    struct cudaDeviceProp card;
    if (properties_of(&card, device)) return last_error;
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = card.maxThreadsPerBlock; break;
    case cudaDevAttrMaxBlockDimX: *value = card.maxThreadsDim[0]; break;
    case cudaDevAttrMaxBlockDimY: *value = card.maxThreadsDim[1]; break;
    case cudaDevAttrMaxBlockDimZ: *value = card.maxThreadsDim[2]; break;
    case cudaDevAttrMaxGridDimX: *value = card.maxGridSize[0]; break;
    case cudaDevAttrMaxGridDimY: *value = card.maxGridSize[1]; break;
    case cudaDevAttrMaxGridDimZ: *value = card.maxGridSize[2]; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = card.sharedMemPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = card.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = card.sharedMemPerMultiprocessor; break;
    case cudaDevAttrReservedSharedMemoryPerBlock: *value = card.reservedSharedMemPerBlock; break;
    case cudaDevAttrWarpSize: *value = card.warpSize; break;
    case cudaDevAttrMaxRegistersPerBlock: *value = card.regsPerBlock; break;
    case cudaDevAttrMaxRegistersPerMultiprocessor: *value = card.regsPerMultiprocessor; break;
    case cudaDevAttrClockRate: *value = 1700000; break;
    case cudaDevAttrMultiProcessorCount: *value = card.multiProcessorCount; break;
    case cudaDevAttrL2CacheSize: *value = card.l2CacheSize; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = card.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *value = card.maxBlocksPerMultiProcessor; break;
    case cudaDevAttrComputeCapabilityMajor: *value = card.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = card.minor; break;
    case cudaDevAttrUnifiedAddressing: *value = 1; break;
    default: *value = 0;
    }
    return OK;
}

/* -- device memory -------------------------------------------------------------------------- */

enum { HOST = -1 };

struct block {
    char *start;
    uint64_t bytes;
    int device; /* or HOST, for memory of the host that is pinned */
};

/* Sorted by address. */
static struct block *blocks;
static int block_count, block_room;
static uint64_t used_bytes[64];

/* The first block that starts above an address. */
static int position_above(const void *address) {
    int low = 0, high = block_count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (blocks[middle].start > (char *)address) high = middle; else low = middle + 1;
    }
    return low;
}

/* The block that holds an address; NULL for memory of the host that is not pinned. */
static struct block *block_at(const void *address) {
    int above = position_above(address);
    if (!above) return NULL;
    struct block *found = &blocks[above - 1];
    return (char *)address < found->start + found->bytes ? found : NULL;
}

static void remember(char *start, uint64_t bytes, int device) {
    if (block_count == block_room) {
        block_room = block_room ? 2 * block_room : 1024;
        blocks = realloc(blocks, block_room * sizeof *blocks);
    }
    int at = position_above(start);
    memmove(blocks + at + 1, blocks + at, (block_count++ - at) * sizeof *blocks);
    blocks[at] = (struct block){start, bytes, device};
}

static void forget(struct block *block) {
    int at = block - blocks;
    memmove(block, block + 1, (--block_count - at) * sizeof *blocks);
}

/* Address space that begins at a multiple of the granule; NULL when there is none. */
static char *address_space(uint64_t bytes) {
    char *mapped = mmap(NULL, bytes + GRANULE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return NULL;
    char *start = (char *)rounded((uint64_t)mapped), *end = mapped + bytes + GRANULE;
    if (start > mapped) munmap(mapped, start - mapped);
    if (end > start + bytes) munmap(start + bytes, end - (start + bytes));
    madvise(start, bytes, MADV_NOHUGEPAGE); /* one value read must not cost 2 MiB */
    return start;
}

static int takes(uint64_t bytes) {
    return used_bytes[current_device] + bytes + context_bytes <= total_bytes;
}

int cudaMalloc(void **address, size_t bytes) {
    *address = NULL;
    if (!bytes) return OK;
    pthread_mutex_lock(&lock);
    uint64_t taken = rounded(bytes);
    char *start = takes(taken) ? address_space(taken) : NULL;
    if (start) {
        remember(start, taken, current_device);
        used_bytes[current_device] += taken;
    }
    pthread_mutex_unlock(&lock);
    *address = start;
    return start ? OK : failed(OUT_OF_MEMORY);
}

int cudaFree(void *address) {
    if (!address) return OK;
    pthread_mutex_lock(&lock);
    struct block *block = block_at(address);
    if (block && block->device == HOST) block = NULL;
    if (block) {
        munmap(block->start, block->bytes);
        used_bytes[block->device] -= block->bytes;
        forget(block);
    }
    pthread_mutex_unlock(&lock);
    return block ? OK : failed(INVALID_VALUE);
}

int cudaMallocAsync(void **address, size_t bytes, void *stream) { return cudaMalloc(address, bytes); }
int cudaFreeAsync(void *address, void *stream) { return cudaFree(address); }
int cudaMallocManaged(void **address, size_t bytes, unsigned flags) {
    return cudaMalloc(address, bytes);
}
int cudaMemGetInfo(size_t *free_bytes, size_t *all_bytes) {
    *all_bytes = total_bytes;
    *free_bytes = total_bytes - context_bytes - used_bytes[current_device];
    return OK;
}
/* As the monitor shows it: with the context. */
uint64_t memfit_used_bytes(int device) { return used_bytes[device] + context_bytes; }

static int pin(void *address, size_t bytes) {
    pthread_mutex_lock(&lock);
    remember(address, bytes, HOST);
    pthread_mutex_unlock(&lock);
    return OK;
}
static int unpin(void *address) {
    pthread_mutex_lock(&lock);
    struct block *block = block_at(address);
    if (block) forget(block);
    pthread_mutex_unlock(&lock);
    return OK;
}
int cudaMallocHost(void **address, size_t bytes) {
    if (!bytes) bytes = 1;
    if (posix_memalign(address, 4096, bytes)) return failed(OUT_OF_MEMORY);
    return pin(*address, bytes);
}
int cudaHostAlloc(void **address, size_t bytes, unsigned flags) {
    return cudaMallocHost(address, bytes);
}
int cudaFreeHost(void *address) {
    if (address) unpin(address);
    free(address);
    return OK;
}
int cudaHostRegister(void *address, size_t bytes, unsigned flags) { return pin(address, bytes); }
int cudaHostUnregister(void *address) { return unpin(address); }
int cudaHostGetDevicePointer(void **device, void *host, unsigned flags) {
    *device = host;
    return OK;
}

/* What goes to the host is copied; onto the card only what is small: large tensors hold zeros and
 * take no memory of this process. */
static int copy(void *to, const void *from, size_t bytes) {
    pthread_mutex_lock(&lock);
    struct block *block = block_at(to);
    int is_read = !block || block->device == HOST;
    pthread_mutex_unlock(&lock);
    if (is_read || bytes <= copied_bytes) memmove(to, from, bytes);
    return OK;
}
int cudaMemcpy(void *to, const void *from, size_t bytes, int kind) { return copy(to, from, bytes); }
int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream) {
    return copy(to, from, bytes);
}
int cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t bytes,
                        void *stream) {
    return copy(to, from, bytes);
}
/* Whole pages of zeros are given back to the system, which makes them when they are read. */
static void zero(char *to, size_t bytes) {
    const uintptr_t page = 4096;
    char *first = (char *)(((uintptr_t)to + page - 1) / page * page);
    char *last = (char *)((uintptr_t)(to + bytes) / page * page);
    if (last < first + 16 * page || madvise(first, last - first, MADV_DONTNEED)) {
        memset(to, 0, bytes);
        return;
    }
    memset(to, 0, first - to);
    memset(last, 0, to + bytes - last);
}
int cudaMemset(void *to, int value, size_t bytes) {
    if (!value) zero(to, bytes);
    else if (bytes <= copied_bytes) memset(to, value, bytes);
    return OK;
}
int cudaMemsetAsync(void *to, int value, size_t bytes, void *stream) {
    return cudaMemset(to, value, bytes);
}
int cudaGetSymbolAddress(void **address, const void *symbol) {
    static char constant_memory[65536];
    *address = constant_memory;
    return OK;
}

int cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *address) {
    pthread_mutex_lock(&lock);
    struct block *block = block_at(address);
    memset(found, 0, sizeof *found);
    found->type = !block                  ? cudaMemoryTypeUnregistered
                  : block->device == HOST ? cudaMemoryTypeHost
                                          : cudaMemoryTypeDevice;
    found->device = !block ? -1 : block->device == HOST ? current_device : block->device;
    found->devicePointer = block ? (void *)address : NULL;
    found->hostPointer = found->type == cudaMemoryTypeDevice ? NULL : (void *)address;
    pthread_mutex_unlock(&lock);
    return OK;
}

/* -- errors -------------------------------------------------------------------------------------- */

int cudaPeekAtLastError(void) { return last_error; }
int cudaGetLastError(void) {
    int error = last_error;
    last_error = OK;
    return error;
}
const char *cudaGetErrorString(int error) {
    switch (error) {
    case OK: return "no error";
    case INVALID_VALUE: return "invalid argument";
    case OUT_OF_MEMORY: return "out of memory";
    case INVALID_DEVICE: return "invalid device ordinal";
    default: return "error of the virtual GPU";
    }
}
const char *cudaGetErrorName(int error) {
    switch (error) {
    case OK: return "cudaSuccess";
    case INVALID_VALUE: return "cudaErrorInvalidValue";
    case OUT_OF_MEMORY: return "cudaErrorMemoryAllocation";
    case INVALID_DEVICE: return "cudaErrorInvalidDevice";
    default: return "cudaErrorUnknown";
    }
}

/* -- what is not counted -------------------------------------------------------------------------- */

static const char *not_counted[8];

void memfit_not_counted(const char *library) {
    pthread_mutex_lock(&lock);
    int at = 0;
    while (not_counted[at] && strcmp(not_counted[at], library)) at++;
    not_counted[at] = library;
    pthread_mutex_unlock(&lock);
}
/* Libraries whose workspaces are not counted, one after the other; NULL after the last. */
const char *memfit_not_counted_at(int number) { return not_counted[number]; }

/* -- the driver's entry points that PyTorch asks for --------------------------------------------- */

static int driver_nothing(void) { return OK; }
static int driver_device(int *device, int ordinal) { *device = ordinal; return OK; }
static int driver_attribute(int *value, int attribute, int device) {
    const int virtual_memory_management = 102; /* CU_DEVICE_ATTRIBUTE_..._SUPPORTED */
    int status = cudaDeviceGetAttribute(value, attribute, device);
    if (attribute == virtual_memory_management) *value = 1;
    return status;
}
static int driver_context(void **context) { *context = (void *)1; return OK; }
static int driver_context_state(int device, unsigned *flags, int *is_active) {
    if (flags) *flags = 0;
    *is_active = 1;
    return OK;
}
static int driver_error_text(int error, const char **text) {
    *text = cudaGetErrorString(error);
    return OK;
}
static int driver_range(uint64_t *start, size_t *bytes, uint64_t address) {
    pthread_mutex_lock(&lock);
    struct block *block = block_at((void *)address);
    if (block) {
        if (start) *start = (uint64_t)block->start;
        if (bytes) *bytes = block->bytes;
    }
    pthread_mutex_unlock(&lock);
    return block ? OK : INVALID_VALUE;
}

/* Virtual memory management, as expandable segments use it: addresses are reserved once, physical
 * memory is created, counted, mapped and released; a handle is its size. */
static int driver_granularity(size_t *bytes, const void *properties, int option) {
    *bytes = GRANULE;
    return OK;
}
static int driver_reserve(uint64_t *address, size_t bytes, size_t alignment, uint64_t hint,
                          unsigned long long flags) {
    char *start = address_space(rounded(bytes));
    *address = (uint64_t)start;
    if (!start) return OUT_OF_MEMORY;
    pthread_mutex_lock(&lock);
    remember(start, rounded(bytes), current_device);
    pthread_mutex_unlock(&lock);
    return OK;
}
static int driver_unreserve(uint64_t address, size_t bytes) {
    pthread_mutex_lock(&lock);
    struct block *block = block_at((void *)address);
    if (block) forget(block);
    pthread_mutex_unlock(&lock);
    munmap((void *)address, rounded(bytes));
    return OK;
}
static int driver_create(unsigned long long *handle, size_t bytes, const void *properties,
                         unsigned long long flags) {
    pthread_mutex_lock(&lock);
    int is_room = takes(bytes);
    if (is_room) used_bytes[current_device] += bytes;
    pthread_mutex_unlock(&lock);
    *handle = bytes;
    return is_room ? OK : OUT_OF_MEMORY;
}
static int driver_release(unsigned long long handle) {
    pthread_mutex_lock(&lock);
    used_bytes[current_device] -= handle;
    pthread_mutex_unlock(&lock);
    return OK;
}
static int driver_unmap(uint64_t address, size_t bytes) {
    madvise((void *)address, bytes, MADV_DONTNEED);
    return OK;
}

static const struct { const char *name; void *function; } ENTRIES[] = {
    {"cuDeviceGet", driver_device},
    {"cuDeviceGetAttribute", driver_attribute},
    {"cuCtxGetCurrent", driver_context},
    {"cuDevicePrimaryCtxGetState", driver_context_state},
    {"cuGetErrorString", driver_error_text},
    {"cuMemGetAddressRange", driver_range},
    {"cuMemGetAddressRange_v2", driver_range},
    {"cuMemGetAllocationGranularity", driver_granularity},
    {"cuMemAddressReserve", driver_reserve},
    {"cuMemAddressFree", driver_unreserve},
    {"cuMemCreate", driver_create},
    {"cuMemRelease", driver_release},
    {"cuMemUnmap", driver_unmap},
};

/* A function of the driver; one that does nothing for those not listed. */
void *memfit_driver_entry(const char *name) {
    for (unsigned i = 0; i < sizeof ENTRIES / sizeof *ENTRIES; i++)
        if (!strcmp(name, ENTRIES[i].name)) return ENTRIES[i].function;
    return driver_nothing;
}
int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                     unsigned long long flags, int *status) {
    *function = memfit_driver_entry(name);
    if (status) *status = 0;
    return OK;
}
int cudaGetDriverEntryPoint(const char *name, void **function, unsigned long long flags,
                            int *status) {
    return cudaGetDriverEntryPointByVersion(name, function, 0, flags, status);
}

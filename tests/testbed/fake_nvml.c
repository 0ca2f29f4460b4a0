/* A libnvidia-ml.so.1 for machines without a GPU. Compiled and used by tests/testbed/nvml.py.
 *
 * The state is a text file named by $FAKE_NVML, read anew at every call, so that a test can change it under a
 * running program. Without the file the library behaves as one whose driver is not loaded.
 *
 *   driver 570.86.15        cuda 12080        name NVIDIA H200        mem 150754820096        latency_us 0
 *   gpu 0 util=37 used=1000000 power=350000 temp=55 energy=123 lost=0 pid=1234:500000 pid=...
 *
 * One setting or GPU per line. Units as in NVML: bytes, mW, degrees Celsius, mJ, percent.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define MAX_GPUS 16
#define MAX_PIDS 16

/* nvmlReturn_t, as in nvml.h */
enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, VERSION_MISMATCH = 25, UNKNOWN = 999
};

typedef unsigned long long u64;

typedef struct {
    u64 util, mutil, used, power, temp, clock, energy, ecc, limit, lost;
    u64 pid[MAX_PIDS], pid_memory[MAX_PIDS];
    int pids;
} Gpu;

typedef struct { int index; } Handle;

typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned version; u64 total, reserved, free, used; } MemoryV2;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; } Process;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
typedef struct { unsigned version; int sensor; int temperature; } TemperatureV1;

static struct {
    char driver[80], name[96];
    int cuda, gpus;
    u64 memory;
    long latency_us;
    Gpu gpu[MAX_GPUS];
} state;

static Handle handles[MAX_GPUS];
static int initialized;

static void read_gpu(char *text) {
    if (state.gpus == MAX_GPUS) return;
    Gpu *gpu = &state.gpu[state.gpus++];
    gpu->temp = 40; gpu->power = 90000; gpu->limit = 700000; gpu->clock = 1980;
    char *rest;
    strtok_r(text, " ", &rest); /* the index, which is the line's place */
    for (char *word; (word = strtok_r(NULL, " ", &rest)) != NULL;) {
        char *value = strchr(word, '=');
        if (!value) continue;
        *value++ = 0;
        u64 number = strtoull(value, NULL, 10);
#define FIELD(key) if (!strcmp(word, #key)) gpu->key = number;
        FIELD(util) FIELD(mutil) FIELD(used) FIELD(power) FIELD(temp)
        FIELD(clock) FIELD(energy) FIELD(ecc) FIELD(limit) FIELD(lost)
        if (!strcmp(word, "pid") && gpu->pids < MAX_PIDS) {
            char *colon = strchr(value, ':');
            gpu->pid[gpu->pids] = number;
            gpu->pid_memory[gpu->pids++] = colon ? strtoull(colon + 1, NULL, 10) : 0;
        }
    }
}

static int read_state(void) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[4096];
    if (!file) return DRIVER_NOT_LOADED;
    memset(&state, 0, sizeof state);
    strcpy(state.driver, "570.86.15");
    strcpy(state.name, "NVIDIA H200");
    state.cuda = 12080;
    state.memory = 150754820096ULL;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *value = strchr(line, ' ');
        if (!value) continue;
        *value++ = 0;
        if (!strcmp(line, "driver")) snprintf(state.driver, sizeof state.driver, "%s", value);
        else if (!strcmp(line, "name")) snprintf(state.name, sizeof state.name, "%s", value);
        else if (!strcmp(line, "cuda")) state.cuda = atoi(value);
        else if (!strcmp(line, "mem")) state.memory = strtoull(value, NULL, 10);
        else if (!strcmp(line, "latency_us")) state.latency_us = atol(value);
        else if (!strcmp(line, "gpu")) read_gpu(value);
    }
    fclose(file);
    if (state.latency_us) usleep(state.latency_us);
    return OK;
}

static int text(char *out, unsigned room, const char *value) {
    if (strlen(value) + 1 > room) return INSUFFICIENT_SIZE;
    strcpy(out, value);
    return OK;
}

/* Stable on one host, different between hosts, like the real ones. */
static void uuid_of(int index, char *out) {
    char host[65] = "";
    unsigned hash = 5381;
    gethostname(host, 64);
    for (char *c = host; *c; c++) hash = hash * 33 + *c;
    sprintf(out, "GPU-%08x-0000-4000-8000-%012d", hash, index);
}

#define ANSWER_OR_FAIL do { \
    if (!initialized) return UNINITIALIZED; \
    if (read_state()) return UNKNOWN; \
} while (0)

/* Begins every call about one GPU; `gpu` and `index` are that GPU's. */
#define OF_GPU(handle) \
    ANSWER_OR_FAIL; \
    if (!(handle)) return INVALID_ARGUMENT; \
    int index = ((Handle *)(handle))->index; \
    if (index < 0 || index >= state.gpus) return INVALID_ARGUMENT; \
    Gpu *gpu = &state.gpu[index]; \
    (void)gpu; \
    if (gpu->lost) return GPU_IS_LOST

EXPORT int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    if (read_state()) return DRIVER_NOT_LOADED;
    for (int i = 0; i < MAX_GPUS; i++) handles[i].index = i;
    initialized++;
    return OK;
}

EXPORT int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

EXPORT int nvmlShutdown(void) {
    if (!initialized) return UNINITIALIZED;
    initialized--;
    return OK;
}

EXPORT const char *nvmlErrorString(int error) {
    switch (error) {
        case OK: return "Success";
        case UNINITIALIZED: return "Uninitialized";
        case INVALID_ARGUMENT: return "Invalid Argument";
        case NOT_SUPPORTED: return "Not Supported";
        case NOT_FOUND: return "Not Found";
        case INSUFFICIENT_SIZE: return "Insufficient Size";
        case DRIVER_NOT_LOADED: return "Driver Not Loaded";
        case GPU_IS_LOST: return "GPU is lost";
        default: return "Unknown Error";
    }
}

EXPORT int nvmlSystemGetDriverVersion(char *out, unsigned room) { ANSWER_OR_FAIL; return text(out, room, state.driver); }

EXPORT int nvmlSystemGetNVMLVersion(char *out, unsigned room) {
    ANSWER_OR_FAIL;
    char version[96];
    snprintf(version, sizeof version, "12.%s", state.driver);
    return text(out, room, version);
}

EXPORT int nvmlSystemGetCudaDriverVersion(int *out) { ANSWER_OR_FAIL; *out = state.cuda; return OK; }
EXPORT int nvmlSystemGetCudaDriverVersion_v2(int *out) { ANSWER_OR_FAIL; *out = state.cuda; return OK; }
EXPORT int nvmlDeviceGetCount_v2(unsigned *out) { ANSWER_OR_FAIL; *out = state.gpus; return OK; }

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    ANSWER_OR_FAIL;
    if ((int)index >= state.gpus) return INVALID_ARGUMENT;
    if (state.gpu[index].lost) return GPU_IS_LOST;
    *handle = &handles[index];
    return OK;
}

EXPORT int nvmlDeviceGetHandleByUUID(const char *wanted, void **handle) {
    ANSWER_OR_FAIL;
    char uuid[64];
    for (int i = 0; i < state.gpus; i++) {
        uuid_of(i, uuid);
        if (!strcmp(uuid, wanted)) {
            *handle = &handles[i];
            return OK;
        }
    }
    return NOT_FOUND;
}

EXPORT int nvmlDeviceGetUUID(void *h, char *out, unsigned room) {
    OF_GPU(h);
    char uuid[64];
    uuid_of(index, uuid);
    return text(out, room, uuid);
}

EXPORT int nvmlDeviceGetSerial(void *h, char *out, unsigned room) {
    OF_GPU(h);
    char serial[32];
    sprintf(serial, "16500%08d", index);
    return text(out, room, serial);
}

EXPORT int nvmlDeviceGetPciInfo_v3(void *h, Pci *pci) {
    OF_GPU(h);
    memset(pci, 0, sizeof *pci);
    pci->bus = 16 + index;
    pci->id = 0x233510de;
    snprintf(pci->legacy, sizeof pci->legacy, "0000:%02X:00.0", pci->bus & 0xff);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus & 0xff);
    return OK;
}

EXPORT int nvmlDeviceGetMemoryInfo(void *h, Memory *out) {
    OF_GPU(h);
    *out = (Memory){state.memory, state.memory - gpu->used, gpu->used};
    return OK;
}

EXPORT int nvmlDeviceGetMemoryInfo_v2(void *h, MemoryV2 *out) {
    OF_GPU(h);
    if (out->version != 0x02000028) return VERSION_MISMATCH;
    *out = (MemoryV2){out->version, state.memory, 0, state.memory - gpu->used, gpu->used};
    return OK;
}

EXPORT int nvmlDeviceGetUtilizationRates(void *h, Utilization *out) {
    OF_GPU(h);
    *out = (Utilization){gpu->util, gpu->mutil};
    return OK;
}

EXPORT int nvmlDeviceGetTemperature(void *h, int sensor, unsigned *out) {
    OF_GPU(h);
    if (sensor) return INVALID_ARGUMENT;
    *out = gpu->temp;
    return OK;
}

EXPORT int nvmlDeviceGetCudaComputeCapability(void *h, int *major, int *minor) { OF_GPU(h); *major = 9; *minor = 0; return OK; }
EXPORT int nvmlDeviceGetName(void *h, char *out, unsigned room) { OF_GPU(h); return text(out, room, state.name); }
EXPORT int nvmlDeviceGetIndex(void *h, unsigned *out) { OF_GPU(h); *out = index; return OK; }
EXPORT int nvmlDeviceGetMinorNumber(void *h, unsigned *out) { OF_GPU(h); *out = index; return OK; }
EXPORT int nvmlDeviceGetTemperatureV(void *h, TemperatureV1 *out) { OF_GPU(h); out->temperature = gpu->temp; return OK; }
EXPORT int nvmlDeviceGetPowerUsage(void *h, unsigned *out) { OF_GPU(h); *out = gpu->power; return OK; }
EXPORT int nvmlDeviceGetEnforcedPowerLimit(void *h, unsigned *out) { OF_GPU(h); *out = gpu->limit; return OK; }
EXPORT int nvmlDeviceGetTotalEnergyConsumption(void *h, u64 *out) { OF_GPU(h); *out = gpu->energy; return OK; }
EXPORT int nvmlDeviceGetClockInfo(void *h, int type, unsigned *out) { OF_GPU(h); (void)type; *out = gpu->clock; return OK; }
EXPORT int nvmlDeviceGetTotalEccErrors(void *h, int a, int b, u64 *out) { OF_GPU(h); (void)a; (void)b; *out = gpu->ecc; return OK; }
EXPORT int nvmlDeviceGetPerformanceState(void *h, int *out) { OF_GPU(h); *out = 0; return OK; }
EXPORT int nvmlDeviceGetMigMode(void *h, unsigned *now, unsigned *next) { OF_GPU(h); *now = *next = 0; return OK; }

/* No fan: a passively cooled card, as the H200 is. */
EXPORT int nvmlDeviceGetFanSpeed(void *h, unsigned *out) { OF_GPU(h); (void)out; return NOT_SUPPORTED; }

EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(void *h, unsigned *count, Process *out) {
    OF_GPU(h);
    unsigned room = *count;
    *count = gpu->pids;
    if (!gpu->pids) return OK;
    if (!out || room < (unsigned)gpu->pids) return INSUFFICIENT_SIZE;
    for (int i = 0; i < gpu->pids; i++)
        out[i] = (Process){gpu->pid[i], gpu->pid_memory[i], 0xffffffff, 0xffffffff};
    return OK;
}

EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v3(void *h, unsigned *count, Process *out) {
    OF_GPU(h);
    (void)out;
    *count = 0;
    return OK;
}

/*
 * Starts a framework-dependent .NET program without the framework's own host: no hostfxr, no hostpolicy, no parsing of two dependency
 * manifests, which together take a tenth of the time to the first guest instruction.
 *
 * It is named like the program and lies beside NAME.dll and NAME.runtimeconfig.json. It handles what we ship ourselves: one framework, all
 * assemblies in one folder. Whatever is not that plain (no runtime found, several frameworks, a variable that speaks to the host) goes to the
 * framework's host, which is kept beside it as NAME.host and also writes the error messages.
 *
 * Hosting interface: coreclr_initialize, coreclr_execute_assembly, coreclr_shutdown_2 (runtime repository, src/coreclr/hosts/inc/coreclrhost.h).
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FRAMEWORK "Microsoft.NETCore.App"
#define MAX_PROPERTIES 64
#define MAX_APP_DLLS 128

typedef int (*initialize_fn)(const char *exe, const char *domain, int count, const char **keys, const char **values, void **host, unsigned *id);
typedef int (*execute_fn)(void *host, unsigned id, int argc, const char **argv, const char *assembly, unsigned *exit_code);
typedef int (*shutdown_fn)(void *host, unsigned id, int *exit_code);

static const char *keys[MAX_PROPERTIES], *values[MAX_PROPERTIES];
static int property_count;

static bool add_property(const char *key, const char *value)
{
    if (property_count == MAX_PROPERTIES)
        return false;
    keys[property_count] = key;
    values[property_count++] = value;
    return true;
}

/* A growing string; out of memory ends the program, as it would end the runtime a moment later. */
struct text {
    char *at;
    size_t length, room;
};

static void append(struct text *text, const char *part)
{
    size_t length = strlen(part);
    if (text->length + length + 1 > text->room) {
        text->room = 2 * (text->length + length + 1);
        text->at = realloc(text->at, text->room);
        if (text->at == NULL)
            abort();
    }
    memcpy(text->at + text->length, part, length + 1);
    text->length += length;
}

static char *join(const char *a, const char *b, const char *c)
{
    struct text text = {0};
    append(&text, a);
    append(&text, b);
    append(&text, c);
    return text.at;
}

/* The framework's host: same arguments, same file names. */
static int fall_back(const char *program, char **argv)
{
    char *host = join(program, ".host", "");
    execv(host, argv);
    fprintf(stderr, "%s: %s\n", host, strerror(errno));
    return 127;
}

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return NULL;
    static char buffer[65536];
    size_t length = fread(buffer, 1, sizeof(buffer) - 1, file);
    bool whole = feof(file) != 0;
    fclose(file);
    buffer[length] = '\0';
    return whole ? strdup(buffer) : NULL;
}

static char *skip_space(char *at)
{
    while (isspace((unsigned char)*at))
        at++;
    return at;
}

/* A JSON string without escapes, ended in place; NULL for anything else. */
static char *take_string(char **at)
{
    char *start = skip_space(*at);
    if (*start != '"')
        return NULL;
    char *end = start + 1;
    while (*end != '\0' && *end != '"' && *end != '\\')
        end++;
    if (*end != '"')
        return NULL;
    *end = '\0';
    *at = end + 1;
    return start + 1;
}

/* The flat object behind "configProperties". */
static bool take_properties(char *at)
{
    at = skip_space(at);
    if (*at++ != '{')
        return false;
    at = skip_space(at);
    if (*at == '}')
        return true;
    for (;;) {
        char *key = take_string(&at);
        at = skip_space(at);
        if (key == NULL || *at++ != ':')
            return false;
        at = skip_space(at);
        char *value = at;
        if (*at == '"') {
            value = take_string(&at);
            if (value == NULL)
                return false;
            at = skip_space(at);
        } else {
            while (isalnum((unsigned char)*at) || *at == '-' || *at == '.')
                at++;
            if (at == value)
                return false;
        }
        char *end = at;
        at = skip_space(at);
        char next = *at++;
        if (next != ',' && next != '}')
            return false;
        *end = '\0';
        if (!add_property(key, value))
            return false;
        if (next == '}')
            return true;
    }
}

static char *value_behind(char *json, const char *name)
{
    char *at = strstr(json, name);
    if (at == NULL)
        return NULL;
    at = skip_space(at + strlen(name));
    return *at == ':' ? at + 1 : NULL;
}

/* Reads NAME.runtimeconfig.json: the wanted version, and the properties. */
static bool read_config(const char *program, int *major, int *minor, int *patch)
{
    char *json = read_file(join(program, ".runtimeconfig.json", ""));
    if (json == NULL || strstr(json, "\"frameworks\"") != NULL || strstr(json, "\"name\": \"" FRAMEWORK "\"") == NULL)
        return false;
    char *version = value_behind(json, "\"version\"");
    char *properties = value_behind(json, "\"configProperties\"");
    return version != NULL && sscanf(version, " \"%d.%d.%d\"", major, minor, patch) == 3 && (properties == NULL || take_properties(properties));
}

/* The newest patch of the wanted major.minor below ROOT/shared, as a path; NULL when there is none. */
static char *find_runtime(const char *root, int major, int minor, int patch)
{
    char *folder = join(root, "/shared/" FRAMEWORK, "");
    DIR *versions = opendir(folder);
    if (versions == NULL)
        return NULL;
    char best[64] = "";
    int best_patch = patch - 1;
    struct dirent *entry;
    while ((entry = readdir(versions)) != NULL) {
        int a, b, c, end = 0;
        /* Previews (10.0.0-rc.1) end behind the number and are left to the framework's host. */
        if (sscanf(entry->d_name, "%d.%d.%d%n", &a, &b, &c, &end) == 3 && entry->d_name[end] == '\0' && a == major && b == minor && c > best_patch &&
            (size_t)end < sizeof(best)) {
            best_patch = c;
            memcpy(best, entry->d_name, (size_t)end + 1);
        }
    }
    closedir(versions);
    return best[0] != '\0' ? join(folder, "/", best) : NULL;
}

static char *first_line(const char *path)
{
    char *text = read_file(path);
    if (text != NULL)
        text[strcspn(text, "\r\n")] = '\0';
    return text;
}

/*
 * A runtime that was packed with the program, then the places where the framework's own host looks, in its order (which is also the order that
 * AppHostRelativeDotNet gives that host).
 */
static char *locate_runtime(const char *app, int major, int minor, int patch)
{
    char *packed = find_runtime(join(app, "/dotnet", ""), major, minor, patch);
    if (packed != NULL)
        return packed;
    const char *given = getenv("DOTNET_ROOT_X64");
    if (given == NULL || *given == '\0')
        given = getenv("DOTNET_ROOT");
    if (given != NULL && *given != '\0')
        return find_runtime(given, major, minor, patch);
    const char *installed[] = { first_line("/etc/dotnet/install_location_x64"), first_line("/etc/dotnet/install_location"), "/usr/share/dotnet", "/usr/lib/dotnet" };
    for (size_t i = 0; i < sizeof(installed) / sizeof(installed[0]); i++) {
        char *found = installed[i] != NULL ? find_runtime(installed[i], major, minor, patch) : NULL;
        if (found != NULL)
            return found;
    }
    return NULL;
}

static bool is_dll(const char *name)
{
    size_t length = strlen(name);
    return length > 4 && strcmp(name + length - 4, ".dll") == 0;
}

/* Every assembly of the program, then those of the framework that it does not bring itself. */
static bool list_assemblies(struct text *list, const char *app, const char *runtime)
{
    static char own[MAX_APP_DLLS][NAME_MAX + 1];
    int own_count = 0;
    const char *folders[] = { app, runtime };
    for (int pass = 0; pass < 2; pass++) {
        DIR *folder = opendir(folders[pass]);
        if (folder == NULL)
            return false;
        struct dirent *entry;
        while ((entry = readdir(folder)) != NULL) {
            bool known = !is_dll(entry->d_name);
            for (int i = 0; pass == 1 && !known && i < own_count; i++)
                known = strcmp(own[i], entry->d_name) == 0;
            if (known)
                continue;
            if (pass == 0) {
                if (own_count == MAX_APP_DLLS) {
                    closedir(folder);
                    return false;
                }
                strcpy(own[own_count++], entry->d_name);
            }
            append(list, folders[pass]);
            append(list, "/");
            append(list, entry->d_name);
            append(list, ":");
        }
        closedir(folder);
    }
    return true;
}

/* Variables that the framework's host understands and we do not. */
static bool wants_host(void)
{
    static const char *const names[] = { "DOTNET_STARTUP_HOOKS", "DOTNET_ADDITIONAL_DEPS", "DOTNET_SHARED_STORE", "DOTNET_ROLL_FORWARD",
                                         "DOTNET_ROLL_FORWARD_TO_PRERELEASE", "COREHOST_TRACE", "DOTNET_HOST_TRACE" };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (getenv(names[i]) != NULL)
            return true;
    return false;
}

/* Libraries that the runtime or the program will open for certain, NULL at the end: what is open already is found without mapping and relocating it. */
static const char *wanted[4];

static void *open_wanted(void *unused)
{
    (void)unused;
    for (int i = 0; wanted[i] != NULL; i++)
        (void)dlopen(wanted[i], RTLD_LAZY); /* whoever needs it says that it is missing */
    return NULL;
}

/* Opens them on the second CPU, while the runtime starts on the first. Without a thread everything works, a little later. */
static void open_ahead(const char *app, const char *runtime)
{
    wanted[0] = join(runtime, "/libclrjit.so", "");
    wanted[1] = join(runtime, "/libSystem.Native.so", "");
    wanted[2] = join(app, "/libvmmshim.so", "");
    /* The runtime asks for this, too. In a process of one thread it is granted at once, in one of two only after an RCU grace period. */
    (void)syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
    pthread_attr_t attributes;
    pthread_t thread;
    if (pthread_attr_init(&attributes) != 0)
        return;
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attributes, 256 * 1024);
    (void)pthread_create(&thread, &attributes, open_wanted, NULL);
    (void)pthread_attr_destroy(&attributes);
}

int main(int argc, char **argv)
{
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
    if (length <= 0) {
        fprintf(stderr, "%s: /proc/self/exe: %s\n", argv[0], strerror(errno));
        return 127;
    }
    program[length] = '\0';
    char *app = strdup(program);
    char *slash = app != NULL ? strrchr(app, '/') : NULL;
    int major, minor, patch;
    if (slash == NULL || wants_host() || !read_config(program, &major, &minor, &patch))
        return fall_back(program, argv);
    *slash = '\0';

    char *runtime = locate_runtime(app, major, minor, patch);
    struct text assemblies = {0};
    if (runtime == NULL || !list_assemblies(&assemblies, app, runtime))
        return fall_back(program, argv);
    struct text native = {0};
    append(&native, app);
    append(&native, "/:");
    append(&native, runtime);
    append(&native, "/:");
    /*
     * A VMM does not offer a debugger port or trace sockets in /tmp to whoever shares its user; DOTNET_EnableDiagnostics=1 asks for them. Set before the
     * runtime is loaded: its tracing provider is looked for in a constructor.
     */
    setenv("DOTNET_EnableDiagnostics", "0", 0);
    setenv("DOTNET_LTTng", "0", 0);
    void *clr = dlopen(join(runtime, "/libcoreclr.so", ""), RTLD_NOW);
    initialize_fn initialize = clr != NULL ? (initialize_fn)dlsym(clr, "coreclr_initialize") : NULL;
    execute_fn execute = clr != NULL ? (execute_fn)dlsym(clr, "coreclr_execute_assembly") : NULL;
    shutdown_fn shut_down = clr != NULL ? (shutdown_fn)dlsym(clr, "coreclr_shutdown_2") : NULL;
    if (initialize == NULL || execute == NULL || shut_down == NULL || !add_property("TRUSTED_PLATFORM_ASSEMBLIES", assemblies.at) ||
        !add_property("NATIVE_DLL_SEARCH_DIRECTORIES", native.at) || !add_property("APP_CONTEXT_BASE_DIRECTORY", join(app, "/", "")) ||
        !add_property("RUNTIME_IDENTIFIER", "linux-x64"))
        return fall_back(program, argv);

    open_ahead(app, runtime);
    void *host;
    unsigned id;
    int status = initialize(program, "vmm", property_count, keys, values, &host, &id);
    if (status < 0)
        return fall_back(program, argv);
    unsigned exit_code = 0;
    status = execute(host, id, argc - 1, (const char **)argv + 1, join(program, ".dll", ""), &exit_code);
    int latched = 0;
    int ended = shut_down(host, id, &latched);
    if (status < 0 || ended < 0) {
        fprintf(stderr, "%s: the runtime in %s answered 0x%08x\n", program, runtime, (unsigned)(status < 0 ? status : ended));
        return 127;
    }
    return latched != 0 ? latched : (int)exit_code;
}

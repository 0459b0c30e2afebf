#include "kit.h"

static const char *line = "";

void args_init(const struct start_info *info)
{
    if (info->cmdline)
        line = (const char *)info->cmdline;
}

const char *command_line(void)
{
    return line;
}

static const char *find(const char *key)
{
    size_t n = strlen(key);
    const char *p = line;
    while (*p) {
        while (*p == ' ')
            p++;
        size_t i = 0;
        while (i < n && p[i] == key[i])
            i++;
        if (i == n && p[n] == '=')
            return p + n + 1;
        while (*p && *p != ' ')
            p++;
    }
    return NULL;
}

const char *arg_text(const char *key, char *buffer, size_t size)
{
    const char *v = find(key);
    if (!v)
        return NULL;
    size_t i = 0;
    for (; v[i] && v[i] != ' ' && i + 1 < size; i++)
        buffer[i] = v[i];
    buffer[i] = 0;
    return buffer;
}

u64 parse_number(const char *p, const char **end)
{
    u64 v = 0;
    unsigned base = 10;
    if (p[0] == '0' && (p[1] | 32) == 'x') {
        base = 16;
        p += 2;
    }
    for (;; p++) {
        unsigned d = *p >= '0' && *p <= '9' ? (unsigned)(*p - '0')
            : base == 16 && (*p | 32) >= 'a' && (*p | 32) <= 'f' ? (unsigned)((*p | 32) - 'a' + 10) : 99;
        if (d >= base)
            break;
        v = v * base + d;
    }
    unsigned shift = (*p | 32) == 'k' ? 10 : (*p | 32) == 'm' ? 20 : (*p | 32) == 'g' ? 30 : 0;
    if (shift)
        p++;
    if (end)
        *end = p;
    return v << shift;
}

u64 arg_number(const char *key, u64 otherwise)
{
    const char *v = find(key);
    return v ? parse_number(v, NULL) : otherwise;
}

bool arg_is(const char *key, const char *value)
{
    char text[32];
    size_t n = strlen(value) + 1;
    return arg_text(key, text, sizeof text) && n <= sizeof text && memcmp(text, value, n) == 0;
}

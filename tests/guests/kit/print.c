#include "kit.h"

void put_char(char c)
{
    out8(0x3f8, (u8)c);     /* every transmitter we run on is always ready: no LSR poll, one exit per byte */
}

static void put_number(u64 v, unsigned base, int width, char pad)
{
    char digits[24];
    int n = 0;
    do {
        digits[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    while (width-- > n)
        put_char(pad);
    while (n)
        put_char(digits[--n]);
}

static void vprint(const char *f, va_list args)
{
    for (; *f; f++) {
        if (*f != '%') {
            put_char(*f);
            continue;
        }
        f++;
        char pad = ' ';
        int width = 0;
        bool wide = false;
        if (*f == '0')
            pad = *f++;
        while (*f >= '0' && *f <= '9')
            width = width * 10 + *f++ - '0';
        while (*f == 'l' || *f == 'z') {
            wide = true;
            f++;
        }
        if (*f == 's') {
            for (const char *s = va_arg(args, const char *); *s; s++)
                put_char(*s);
        } else if (*f == 'c') {
            put_char((char)va_arg(args, int));
        } else if (*f == 'd') {
            int64_t v = wide ? va_arg(args, int64_t) : va_arg(args, int);
            if (v < 0)
                put_char('-');
            put_number(v < 0 ? 0 - (u64)v : (u64)v, 10, width, pad);
        } else if (*f == 'u' || *f == 'x') {
            put_number(wide ? va_arg(args, u64) : va_arg(args, u32), *f == 'x' ? 16 : 10, width, pad);
        } else {
            put_char(*f);
        }
    }
}

void print(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprint(format, args);
    va_end(args);
}

void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print("FAIL ");
    vprint(format, args);
    put_char('\n');
    debug_exit(1);
}

void report_exception(u64 vector, u64 error, u64 rip, u64 cr2);
void report_exception(u64 vector, u64 error, u64 rip, u64 cr2)
{
    print("\nEXCEPTION vector=%lu error=0x%lx rip=0x%lx cr2=0x%lx\n", vector, error, rip, cr2);
}

/* What every micro-guest may use. Freestanding; all of it runs at CPL 3 with IOPL 3 and an identity map. */
#pragma once
#include <stdint.h>
#include <stddef.h>
#include <stdarg.h>
#include <stdbool.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* hvm_start_info, version 1. */
struct start_info {
    u32 magic, version, flags, nr_modules;
    u64 modlist, cmdline, rsdp;
    u64 memmap;
    u32 memmap_entries, reserved;
};
struct memmap_entry { u64 addr, size; u32 type, reserved; };

int main(struct start_info *info);
_Noreturn void debug_exit(u32 code);

static inline void out8(u16 port, u8 v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline void out32(u16 port, u32 v) { __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline u8 in8(u16 port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }
static inline u32 in32(u16 port) { u32 v; __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }
static inline u64 rdtsc(void) { u32 lo, hi; __asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory"); return (u64)hi << 32 | lo; }

/* print.c: the 16550 at 0x3f8. %s %c %d %u %x, with l for 64 bit and 0N widths. */
void put_char(char c);
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));  /* "FAIL ..." and exit 1 */

/* args.c: key=value words of the command line. */
void args_init(const struct start_info *info);
const char *arg_text(const char *key, char *buffer, size_t size);   /* NULL when missing */
u64 arg_number(const char *key, u64 otherwise);                     /* decimal, 0x, suffix K M G */
bool arg_is(const char *key, const char *value);
const char *command_line(void);
u64 parse_number(const char *text, const char **end);

/* TSC kHz: tsc_khz= on the command line, else CPUID 0x40000010 or 0x15, else measured on PIT channel 0. */
u64 tsc_khz(void);

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);

static inline u64 next_random(u64 *state)   /* xorshift64* */
{
    u64 x = *state;
    x ^= x >> 12; x ^= x << 25; x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1dull;
}
extern char image_end[];

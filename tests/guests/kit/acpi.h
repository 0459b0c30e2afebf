/* ACPI tables, found from the RSDP in the start info. Every table's checksum is verified; a bad one ends the guest. */
#pragma once
#include "kit.h"

struct acpi_table { char signature[4]; u32 length; u8 revision, checksum; char oem[6], oem_table[8]; u32 oem_revision, creator, creator_revision; } __attribute__((packed));

unsigned acpi_init(const struct start_info *info);          /* number of tables in the XSDT */
const struct acpi_table *acpi_find(const char *signature);  /* NULL when missing */

static inline u16 get16(const void *p) { u16 v; __builtin_memcpy(&v, p, 2); return v; }
static inline u32 get32(const void *p) { u32 v; __builtin_memcpy(&v, p, 4); return v; }
static inline u64 get64(const void *p) { u64 v; __builtin_memcpy(&v, p, 8); return v; }

using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Machine.Boot;

/// <summary>
/// Puts kernel, initrd, command line and start tables into guest RAM. RAM must be fresh: what a kernel expects to be zero is not cleared
/// here.
/// </summary>
public static class BootLoader
{
    private const int ElfCommandLineSize = 2047;    // COMMAND_LINE_SIZE of x86 Linux, less the zero
    private const ulong PageSize = 4096;

    /// <summary>Loads everything; on an error the RAM is half written and the VM must not be started.</summary>
    /// <exception cref="BootException">Something does not fit or cannot be read; the message says what.</exception>
    public static BootInfo Load(GuestMemory memory, BootRequest request)
    {
        KernelImage kernel = request.Kernel;
        List<RamRange> ram = BootMemoryMap.MergedRam(memory);
        if (ram.Count == 0 || ram[0].Start != 0 || !memory.Contains(new(0), BootLayout.HighMemory) || ram[0].End <= BootLayout.HighMemory)
        {
            throw new BootException(
                kernel.File.Name, "memory", null, "the VM needs more than 1 MiB of RAM from address 0, the first MiB in one vnode");
        }

        IReadOnlyList<BootMemoryRange> map = BootMemoryMap.Create(memory, request.Reserved);
        if (map.Count > BootLayout.MaxMemoryMapEntries)
        {
            throw new BootException(kernel.File.Name, "memory", null,
                $"{map.Count} memory map entries, the boot protocol has room for {BootLayout.MaxMemoryMapEntries}");
        }

        (ulong start, ulong end, ulong entry) = kernel.BzImage is { } header
            ? PlaceBzImage(memory, kernel, header, ram[0].End)
            : PlaceElf(memory, kernel, ram);
        (ulong initrd, ulong initrdSize) = PlaceInitrd(memory, request, kernel, ram[0].End, start, end);
        WriteCommandLine(memory, kernel, request.CommandLine);

        ulong rsdp = request.AcpiRsdp?.Value ?? 0;
        bool pvh = kernel.Format == KernelFormat.ElfPvh;
        InitialCpuState cpu = pvh ? InitialCpuState.Pvh32(entry) : InitialCpuState.Linux64(entry);
        BootTables.WriteGdt(memory, cpu);
        if (pvh)
        {
            BootTables.WriteStartInfo(memory, initrd, initrdSize, rsdp, map);
        }
        else
        {
            BootTables.WritePageTables(memory);
            BootTables.WriteZeroPage(memory, kernel.BzImage, initrd, initrdSize, rsdp, map);
        }

        return new BootInfo(pvh ? BootProtocol.Pvh32 : BootProtocol.Linux64, cpu, start, end, initrd, initrdSize, map);
    }

    private static (ulong Start, ulong End, ulong Entry) PlaceBzImage(
        GuestMemory memory, KernelImage kernel, BzImageHeader header, ulong lowRamEnd)
    {
        ulong limit = Math.Min(lowRamEnd, BootLayout.LoadLimit);
        ulong need = Math.Max(header.InitSize, header.KernelSize);
        ulong preferred = header.PreferredAddress;
        bool preferredFits = preferred >= BootLayout.HighMemory && preferred <= limit && need <= limit - preferred;
        ulong start = preferred;
        ulong end = preferred + need;
        if (header.Relocatable && !preferredFits)
        {
            start = RoundUp(BootLayout.HighMemory, header.Alignment);
            end = start + need;
        }
        else if (!header.Relocatable)
        {
            // It is loaded at 1 MiB and moves itself to pref_address: both places are taken.
            start = BootLayout.HighMemory;
            end = preferredFits ? Math.Max(preferred + need, start + header.KernelSize) : ulong.MaxValue;
        }

        if (end > limit)
        {
            throw new BootException(kernel.File.Name, "init_size", 0x260, $"the kernel needs 0x{need:x} bytes (preferred at "
                + $"0x{preferred:x}), RAM below 3 GiB ends at 0x{limit:x}: give the VM more memory");
        }

        BootWriter.CopyFile(memory, kernel.File, header.KernelOffset, header.KernelSize, start, "kernel");
        return (start, end, start + 0x200);
    }

    private static (ulong Start, ulong End, ulong Entry) PlaceElf(GuestMemory memory, KernelImage kernel, List<RamRange> ram)
    {
        foreach (KernelSegment segment in kernel.Segments)
        {
            ulong end = segment.Address + segment.MemorySize;
            if (segment.Address < BootLayout.HighMemory)
            {
                throw new BootException(kernel.File.Name, "p_paddr", segment.AddressOffset,
                    $"segment at 0x{segment.Address:x} lies in the first MiB, which belongs to the loader");
            }

            if (!IsRam(ram, segment.Address, end))
            {
                throw new BootException(kernel.File.Name, "p_paddr", segment.AddressOffset, $"segment 0x{segment.Address:x}-0x{end:x} is "
                    + $"not in RAM (RAM below 3 GiB ends at 0x{ram[0].End:x}): give the VM more memory");
            }
        }

        if (kernel.EntryPoint > uint.MaxValue)
        {
            throw new BootException(kernel.File.Name, "e_entry", kernel.EntryFieldOffset,
                $"0x{kernel.EntryPoint:x} is above 4 GiB, where nothing is mapped at start");
        }

        foreach (KernelSegment segment in kernel.Segments)
        {
            BootWriter.CopyFile(memory, kernel.File, segment.FileOffset, segment.FileSize, segment.Address, "segment");
        }

        KernelSegment last = kernel.Segments[^1];
        return (kernel.Segments[0].Address, last.Address + last.MemorySize, kernel.EntryPoint);
    }

    private static bool IsRam(List<RamRange> ram, ulong start, ulong end)
    {
        foreach (RamRange range in ram)
        {
            if (start >= range.Start && end <= range.End)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>As high as the kernel allows below 3 GiB, whole pages, not on the kernel.</summary>
    private static (ulong Start, ulong Length) PlaceInitrd(
        GuestMemory memory, BootRequest request, KernelImage kernel, ulong lowRamEnd, ulong kernelStart, ulong kernelEnd)
    {
        if (request.Initrd is not { } file)
        {
            return (0, 0);
        }

        if (file.Length == 0)
        {
            throw new BootException(file.Name, "initrd", null, "is empty");
        }

        ulong limit = Math.Min(lowRamEnd, BootLayout.LoadLimit);
        if (kernel.BzImage is { InitrdAddressMax: > 0 } header)
        {
            limit = Math.Min(limit, header.InitrdAddressMax + 1);
        }

        ulong start = Below(limit, file.Length);
        if (start < kernelEnd && start + file.Length > kernelStart)
        {
            start = Below(kernelStart, file.Length);
        }

        if (start < BootLayout.HighMemory && kernel.BzImage is { } own && limit == own.InitrdAddressMax + 1
            && limit < Math.Min(lowRamEnd, BootLayout.LoadLimit))
        {
            throw new BootException(
                file.Name, "initrd", null,
                $"0x{file.Length:x} bytes do not fit below 0x{limit:x}, the highest address at which this kernel takes an initrd "
                    + $"(initrd_addr_max), beside the kernel (0x{kernelStart:x}-0x{kernelEnd:x}): more memory does not help, use a "
                    + "smaller initrd");
        }

        if (start < BootLayout.HighMemory)
        {
            throw new BootException(file.Name, "initrd", null, $"0x{file.Length:x} bytes do not fit into RAM between the kernel "
                + $"(0x{kernelStart:x}-0x{kernelEnd:x}) and 0x{limit:x}: give the VM more memory");
        }

        BootWriter.CopyFile(memory, file, 0, file.Length, start, "initrd");
        return (start, file.Length);
    }

    private static void WriteCommandLine(GuestMemory memory, KernelImage kernel, string commandLine)
    {
        int limit = kernel.BzImage is { } header
            ? (int)Math.Min(header.CommandLineSize, BootLayout.CommandLineRoom - 1)
            : ElfCommandLineSize;
        if (!CString.TryOf(commandLine, out byte[] bytes))
        {
            throw new BootException(kernel.File.Name, "command line", null, "contains a zero character");
        }

        if (bytes.Length - 1 > limit)
        {
            throw new BootException(kernel.File.Name, "command line", null, $"{bytes.Length - 1} bytes, this kernel takes {limit}");
        }

        BootWriter.Write(memory, BootLayout.CommandLine, bytes);
    }

    private static ulong Below(ulong limit, ulong length) => length <= limit ? (limit - length) & ~(PageSize - 1) : 0;

    private static ulong RoundUp(ulong value, ulong unit) => (value + unit - 1) & ~(unit - 1);
}

using Tmds.Linux;

namespace Vmm.Interop.Libc;

/// <summary>Facts about files and block devices under disks.</summary>
internal static unsafe class BlockCalls
{
    // linux/fs.h, linux/stat.h
    private const uint BlkSizeInBytes = 0x80081272, BlkLogicalSize = 0x1268, BlkPhysicalSize = 0x127b, BlkReadOnly = 0x125e,
        BlkMinimumIo = 0x1278, BlkOptimalIo = 0x1279, BlkAlignmentOffset = 0x127a, StatxDirectAlign = 0x2000;

    /// <summary>What <see cref="Inspect"/> asks of a block device.</summary>
    internal static readonly uint[] InspectRequests =
        [BlkSizeInBytes, BlkLogicalSize, BlkPhysicalSize, BlkReadOnly, BlkMinimumIo, BlkOptimalIo, BlkAlignmentOffset];

    /// <summary>0, or -errno.</summary>
    internal static int Inspect(FileDescriptorHandle file, out BlockFileInfo info)
    {
        using DescriptorLease fd = new(file);
        info = default;
        int answer = FileCalls.Status(fd.Number, out FileStatus status);
        if (answer < 0)
        {
            return answer;
        }

        bool device = status.IsBlockDevice;
        if (device)
        {
            answer = InspectDevice(fd.Number, out info);
        }
        else
        {
            bool odd = !status.IsRegular || status.BlockSize is < 512 or > 65536;
            info = new BlockFileInfo
            {
                Kind = status.IsRegular ? BlockFileKind.RegularFile : BlockFileKind.Other,
                Size = status.IsRegular ? status.Size : 0,
                LogicalBlock = 512,
                PhysicalBlock = odd ? 512 : status.BlockSize,
            };
        }

        if (answer == 0 && (status.Mask & StatxDirectAlign) != 0)
        {
            info = info with { DirectMemoryAlign = status.DirectMemoryAlign, DirectOffsetAlign = status.DirectOffsetAlign };
        }

        return answer;
    }

    private static int InspectDevice(int fd, out BlockFileInfo info)
    {
        ulong size;
        int logical = 512, readOnly = 0, misaligned = 0;
        uint physical = 512, minimum = 0, optimal = 0;
        int answer = FileCalls.Ioctl(fd, BlkSizeInBytes, &size);
        info = default;
        if (answer < 0)
        {
            return answer;
        }

        if (FileCalls.Ioctl(fd, BlkLogicalSize, &logical) < 0 || logical < 512)
        {
            logical = 512;
        }

        _ = FileCalls.Ioctl(fd, BlkPhysicalSize, &physical);
        _ = FileCalls.Ioctl(fd, BlkReadOnly, &readOnly);
        _ = FileCalls.Ioctl(fd, BlkMinimumIo, &minimum);
        _ = FileCalls.Ioctl(fd, BlkOptimalIo, &optimal);
        _ = FileCalls.Ioctl(fd, BlkAlignmentOffset, &misaligned); // negative: the kernel does not know it
        info = new BlockFileInfo
        {
            Kind = BlockFileKind.BlockDevice,
            Size = size,
            LogicalBlock = (uint)logical,
            PhysicalBlock = physical,
            MinimumIo = minimum,
            OptimalIo = optimal,
            AlignmentOffset = (uint)Math.Max(misaligned, 0),
            ReadOnly = readOnly != 0 ? 1u : 0,
            DirectMemoryAlign = (uint)logical,
            DirectOffsetAlign = (uint)logical,
        };
        return 0;
    }
}

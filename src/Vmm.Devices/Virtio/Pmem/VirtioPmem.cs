using System.Buffers.Binary;
using Vmm.Devices.Pci;
using Vmm.Interop;

namespace Vmm.Devices.Virtio.Pmem;

/// <summary>
/// Persistent memory (virtio 1.2 section 5.19): a file of the host that the guest maps as the memory of a BAR. Reads and writes of the
/// guest never leave it; a flush request is fdatasync(2) of the file. A guest that only reads shares its pages with every other VM of the
/// same file, in the page cache of the host.
/// </summary>
public sealed class VirtioPmem : QueuedDevice
{
    /// <summary>What the file's length is a multiple of, in bytes: Linux maps persistent memory in pieces of 2 MiB.</summary>
    public const ulong Granule = 2 << 20;

    private const ulong FeatureSharedMemory = 1; // 5.19.3
    private const byte Region = 0; // 5.19.5: the region's shared memory id
    private const int Length = 16;

    private readonly FileDescriptorHandle _file;
    private readonly SharedFileMapping _mapping;
    private readonly SharedMemoryRegion _region;

    /// <summary>Makes the device. Its <see cref="Memory"/> outlives it.</summary>
    /// <param name="name">Names its thread, e.g. <c>pmem0</c>.</param>
    /// <param name="file">The file, owned by the device from now on, also when this throws.</param>
    /// <param name="path">What messages call it.</param>
    /// <param name="readOnly">The guest's writes have no effect; the file may be open for reading only.</param>
    /// <exception cref="ArgumentException">The file's length is none that a guest can map.</exception>
    /// <exception cref="KernelException">It cannot be mapped.</exception>
    public VirtioPmem(string name, FileDescriptorHandle file, string path, bool readOnly)
        : base(name)
    {
        _file = file;
        try
        {
            BlockFileInfo info = BlockFile.Inspect(file);
            if (info.Size == 0 || info.Size % Granule != 0)
            {
                throw new ArgumentException(
                    $"{path}: {info.Size} bytes cannot be persistent memory, whose length is a multiple of 2 MiB: truncate -s %2M {path}",
                    nameof(file));
            }

            _mapping = new SharedFileMapping(file, info.Size, writable: !readOnly);
        }
        catch
        {
            file.Dispose();
            throw;
        }

        _region = new SharedMemoryRegion(Region, new HostMapping(_mapping.Address, _mapping.Length, readOnly));
        SharedMemory = [_region];
    }

    /// <inheritdoc/>
    public override ushort DeviceType => 27;

    /// <inheritdoc/>
    public override ulong DeviceFeatures => FeatureSharedMemory;

    /// <inheritdoc/>
    public override IReadOnlyList<ushort> QueueSizes { get; } = [64];

    /// <inheritdoc/>
    public override int ConfigLength => Length;

    /// <inheritdoc/>
    public override IReadOnlyList<SharedMemoryRegion> SharedMemory { get; }

    /// <summary>The memory, for whoever keeps it longer than the device: other devices may be amid transfers to it.</summary>
    public IDisposable Memory => _mapping;

    /// <summary>
    /// Where the memory is, for drivers that do not take VIRTIO_PMEM_F_SHMEM_REGION (5.19.4); the others look at the BAR.
    /// </summary>
    public override void ReadConfig(int offset, Span<byte> data)
    {
        Span<byte> config = stackalloc byte[Length];
        BinaryPrimitives.WriteUInt64LittleEndian(config, _region.Address?.Value ?? 0);
        BinaryPrimitives.WriteUInt64LittleEndian(config[8..], _mapping.Length);
        data.Clear();
        if (offset is >= 0 and < Length)
        {
            config[offset..Math.Min(Length, offset + data.Length)].CopyTo(data);
        }
    }

    /// <inheritdoc/>
    private protected override IQueueService? CreateService(VirtioActivation activation) =>
        activation.Queues[0] is null ? null : new PmemRequests(activation, _file);

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        base.Dispose(disposing);
        if (disposing)
        {
            _file.Dispose();
        }
    }
}

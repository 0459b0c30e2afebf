using System.Diagnostics.CodeAnalysis;
using Vmm.Devices.VhostUser;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Kvm;
using Vmm.Machine.Boot;
using Vmm.Placement;
using Vmm.Spec;
using Vmm.Spec.Devices;
using Vmm.Storage;

namespace Vmm.Machine.Resources;

/// <summary>Resources that somebody with more privileges opened and passed by name. Disposing closes what was not asked for.</summary>
public sealed class DescriptorResources : IMachineResources, IDisposable
{
    private readonly Dictionary<string, FileDescriptorHandle> _descriptors;

    /// <summary>Takes ownership of the descriptors.</summary>
    public DescriptorResources(Dictionary<string, FileDescriptorHandle> descriptors) => _descriptors = descriptors;

    /// <summary>Takes remarks on what was passed; null when nobody reads them.</summary>
    public Action<string>? Note { get; init; }

    /// <inheritdoc/>
    public IMachineThreads? Threads { get; init; }

    /// <inheritdoc/>
    public Action<string>? FirmwareSaid => Note is { } note ? line => note("firmware: " + line) : null;

    /// <inheritdoc/>
    public Func<uint, UnixStream?>? DialHost { get; init; }

    /// <inheritdoc/>
    public UnixListener? TakeVsock() =>
        TryTake(ResourceNames.Vsock, out FileDescriptorHandle? listener) ? new UnixListener(listener) : null;

    /// <summary>
    /// Connects again to the server of a disk, known by its URI, or to the program of a shared folder, or fails with an <see
    /// cref="IOException"/>; null: nobody does.
    /// </summary>
    public Func<string, CancellationToken, Task<FileDescriptorHandle>>? DialStorage { get; init; }

    /// <summary>False when the process opens no files any more: what lies in a library that was not needed before is refused.</summary>
    public bool MayLoad { get; init; } = true;

    /// <inheritdoc/>
    public KvmSystem OpenKvm() => KvmSystem.FromDescriptor(new KvmHandle(Take(ResourceNames.Kvm)));

    /// <inheritdoc/>
    public BootFile OpenKernel(BootSpec boot) => BootFile.FromDescriptor(boot.Kernel, Take(ResourceNames.Kernel));

    /// <inheritdoc/>
    public BootFile OpenInitrd(BootSpec boot) => BootFile.FromDescriptor(boot.Initrd!, Take(ResourceNames.Initrd));

    /// <inheritdoc/>
    public BootFile OpenFirmware(BootSpec boot) => BootFile.FromDescriptor("firmware", Take(ResourceNames.Firmware));

    /// <inheritdoc/>
    public FileDescriptorHandle? OpenVariables(BootSpec boot) => Take(ResourceNames.Variables);

    /// <inheritdoc/>
    public BootFile OpenVariableTemplate(BootSpec boot) => throw new NotSupportedException("whoever opens the files keeps the variables");

    /// <inheritdoc/>
    public FileDescriptorHandle OpenUserfault() => Take(ResourceNames.Userfault);

    /// <inheritdoc/>
    public FileDescriptorHandle OpenSwap(PagingSpec paging) => Take(ResourceNames.Swap);

    /// <inheritdoc/>
    public IDiskBackend OpenDisk(int index, DiskSpec disk) => disk.IsRemote
        ? NbdDisks.OpenPassed(disk, Take(ResourceNames.Disk(index)), DialStorage, MayLoad, Note)
        : DiskFiles.FromDescriptors(
            disk, name => TryTake(name, out FileDescriptorHandle? descriptor) ? descriptor : null, index, Note, Threads);

    /// <summary>A new image for the top of a disk; the files below it are open already.</summary>
    /// <param name="index">Its number in the names of descriptors.</param>
    /// <param name="path">Its file.</param>
    /// <exception cref="BlockException">Not a file that this can use.</exception>
    /// <exception cref="ArgumentException">It was not passed.</exception>
    public RawFileBackend OpenOverlay(int index, string path) =>
        DiskFiles.OverlayFromDescriptors(path, name => TryTake(name, out FileDescriptorHandle? descriptor) ? descriptor : null, index);

    /// <summary>An image of a disk's chain that is to be written: it is locked as a base still.</summary>
    /// <param name="path">Its file.</param>
    /// <exception cref="BlockException">Not a file that this can use.</exception>
    /// <exception cref="ArgumentException">It was not passed.</exception>
    public RawFileBackend OpenBase(string path) =>
        DiskFiles.OverlayFromDescriptors(path, name => TryTake(name, out FileDescriptorHandle? descriptor) ? descriptor : null, 0);

    /// <inheritdoc/>
    public FileDescriptorHandle OpenDeviceFile(int index, DeviceFile file) => Take(ResourceNames.DeviceFile(index, file.Role));

    /// <inheritdoc/>
    public INetBackend OpenNet(int index, NetSpec net)
    {
        if (net.User is not null)
        {
            return UserNets.Passed(index, Take(ResourceNames.NetQueue(index, 0)), Note, DialStorage);
        }

        TapQueue[] queues = new TapQueue[net.Queues];
        try
        {
            for (int i = 0; i < queues.Length; i++)
            {
                queues[i] = TapQueue.FromDescriptor(Take(ResourceNames.NetQueue(index, i)));
            }

            return new TapBackend(queues, TakeVhost(index, net));
        }
        catch
        {
            foreach (TapQueue? queue in queues)
            {
                queue?.Dispose();
            }

            throw;
        }
    }

    /// <inheritdoc/>
    public VhostUserLink OpenShare(int index, ShareSpec share) =>
        SharedFolders.Passed(index, share, Take(ResourceNames.Share(index)), DialStorage, Note);

    /// <inheritdoc/>
    public VhostUserLink OpenBackEnd(int index, string id, DeviceSpec device, VhostUserNeeds needs) =>
        BackEnds.Passed(id, device, needs, Take(ResourceNames.BackEnd(index)), DialStorage, Note);

    /// <summary>vhost-net for every queue of a network device, or nothing.</summary>
    private List<VhostNet> TakeVhost(int index, NetSpec net)
    {
        List<VhostNet> kernel = [];
        try
        {
            int most = net.Vhost == VhostUse.Off ? 0 : net.Queues;
            for (int i = 0; i < most && _descriptors.Remove(ResourceNames.NetVhost(index, i), out FileDescriptorHandle? vhost); i++)
            {
                kernel.Add(VhostNet.FromDescriptor(vhost));
            }

            return kernel;
        }
        catch (KernelException cause)
        {
            kernel.ForEach(vhost => vhost.Dispose());
            return net.Vhost == VhostUse.On ? throw VhostChoice.Missing(net, cause) : [];
        }
    }

    /// <summary>The descriptor of that name, now the caller's.</summary>
    /// <exception cref="ArgumentException">It was not passed.</exception>
    public FileDescriptorHandle Take(string name) => _descriptors.Remove(name, out FileDescriptorHandle? descriptor)
        ? descriptor
        : throw new ArgumentException($"descriptor \"{name}\" was not passed", nameof(name));

    /// <summary>The descriptor of that name, now the caller's; false when it was not passed.</summary>
    public bool TryTake(string name, [NotNullWhen(true)] out FileDescriptorHandle? descriptor) => _descriptors.Remove(name, out descriptor);

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (FileDescriptorHandle descriptor in _descriptors.Values)
        {
            descriptor.Dispose();
        }

        _descriptors.Clear();
    }
}

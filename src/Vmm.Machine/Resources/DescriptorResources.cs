using System.Diagnostics.CodeAnalysis;
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

    /// <inheritdoc/>
    public IMachineThreads? Threads { get; init; }

    /// <inheritdoc/>
    public Func<uint, UnixStream?>? DialHost { get; init; }

    /// <inheritdoc/>
    public KvmSystem OpenKvm() => KvmSystem.FromDescriptor(new KvmHandle(Take(ResourceNames.Kvm)));

    /// <inheritdoc/>
    public BootFile OpenKernel(BootSpec boot) => BootFile.FromDescriptor(boot.Kernel, Take(ResourceNames.Kernel));

    /// <inheritdoc/>
    public BootFile OpenInitrd(BootSpec boot) => BootFile.FromDescriptor(boot.Initrd!, Take(ResourceNames.Initrd));

    /// <inheritdoc/>
    public IDiskBackend OpenDisk(int index, DiskSpec disk)
    {
        FileDescriptorHandle buffered = Take(ResourceNames.Disk(index));
        _descriptors.Remove(ResourceNames.DirectDisk(index), out FileDescriptorHandle? direct);
        return RawFileBackend.FromDescriptors(disk.Path, PathResources.Options(disk), buffered, direct);
    }

    /// <inheritdoc/>
    public FileDescriptorHandle OpenDeviceFile(int index, DeviceFile file) => Take(ResourceNames.DeviceFile(index, file.Role));

    /// <inheritdoc/>
    public INetBackend OpenNet(int index, NetSpec net)
    {
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

    /// <summary>vhost-net for every queue of a network device, or nothing.</summary>
    private List<VhostNet> TakeVhost(int index, NetSpec net)
    {
        List<VhostNet> kernel = [];
        try
        {
            for (int i = 0; i < net.Queues && _descriptors.Remove(ResourceNames.NetVhost(index, i), out FileDescriptorHandle? vhost); i++)
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

using System.Globalization;
using Vmm.Interop.Kvm;
using Vmm.Devices.VhostUser;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Net;
using Vmm.HostNet;
using Vmm.HostNet.Shares;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.Machine.Boot;
using Vmm.Placement;
using Vmm.Spec;
using Vmm.Spec.Devices;
using Vmm.Storage;

namespace Vmm.Machine.Resources;

/// <summary>
/// Where a machine gets what lies outside its process. Each call gives a new object that the caller owns; each thing is asked for once.
/// </summary>
public interface IMachineResources
{
    /// <summary>The KVM device.</summary>
    /// <exception cref="KvmUnavailableException">Missing, forbidden or incompatible.</exception>
    KvmSystem OpenKvm();

    /// <summary>The kernel file.</summary>
    /// <exception cref="BootException">It cannot be opened.</exception>
    BootFile OpenKernel(BootSpec boot);

    /// <summary>The initial ramdisk; only called when the spec has one.</summary>
    /// <exception cref="BootException">It cannot be opened.</exception>
    BootFile OpenInitrd(BootSpec boot);

    /// <summary>The firmware; only called for a machine that starts by it.</summary>
    /// <exception cref="BootException">It cannot be opened.</exception>
    BootFile OpenFirmware(BootSpec boot);

    /// <summary>The file with the firmware's variables, locked; null: nobody keeps them, and they begin as the template has them.</summary>
    /// <exception cref="BlockException">It cannot be opened, or is in use.</exception>
    FileDescriptorHandle? OpenVariables(BootSpec boot);

    /// <summary>The firmware's variables as a new machine has them; only called when nobody keeps them.</summary>
    /// <exception cref="BootException">It cannot be opened.</exception>
    BootFile OpenVariableTemplate(BootSpec boot);

    /// <summary>The host's userfaultfd device; only called for a machine with a resident limit.</summary>
    /// <exception cref="HostMismatchException">The host has none, or it may not be opened.</exception>
    FileDescriptorHandle OpenUserfault();

    /// <summary>
    /// The file of a swap store, empty and without a name, past the host's page cache where it can be; only called for a machine with a
    /// resident limit. It takes up to <see cref="PagingSpec.SwapLimit"/>.
    /// </summary>
    /// <exception cref="HostMismatchException">It cannot be made.</exception>
    FileDescriptorHandle OpenSwap(PagingSpec paging);

    /// <summary>Who starts and confines the machine's threads; null: they are threads as others.</summary>
    IMachineThreads? Threads => null;

    /// <summary>Connects a guest's vsock to a port of the host, or answers null soon; null: the machine may do that itself.</summary>
    Func<uint, UnixStream?>? DialHost => null;

    /// <summary>The socket that the vsock listens on; null: the machine binds the one that the spec names.</summary>
    UnixListener? TakeVsock() => null;

    /// <summary>Takes what firmware says on its debug port, a line at a time, on a thread of its own; null: nobody does.</summary>
    Action<string>? FirmwareSaid => null;

    /// <summary>Disk number <paramref name="index"/> of the spec, locked.</summary>
    /// <exception cref="BlockException">It cannot be opened, or is in use.</exception>
    IDiskBackend OpenDisk(int index, DiskSpec disk);

    /// <summary>
    /// A file of entry number <paramref name="index"/> of <c>devices</c>, locked as <see cref="DeviceFile.Writable"/> says.
    /// </summary>
    /// <exception cref="BlockException">It cannot be opened, or is in use.</exception>
    FileDescriptorHandle OpenDeviceFile(int index, DeviceFile file);

    /// <summary>The queues of network device number <paramref name="index"/>.</summary>
    /// <exception cref="TapException">They cannot be opened.</exception>
    /// <exception cref="HostNetException">What is to be behind them cannot be started.</exception>
    INetBackend OpenNet(int index, NetSpec net);

    /// <summary>The program that serves shared folder number <paramref name="index"/>.</summary>
    /// <exception cref="HostShareException">It cannot be started, or does not answer.</exception>
    VhostUserLink OpenShare(int index, ShareSpec share);

    /// <summary>The program that serves entry number <paramref name="index"/> of <c>devices</c>, which somebody else started.</summary>
    /// <exception cref="VhostUserException">It cannot be reached, or cannot what is needed.</exception>
    VhostUserLink OpenBackEnd(int index, string id, DeviceSpec device, VhostUserNeeds needs);
}

/// <summary>The threads that a guest drives, for whoever wants them to be able to do less than the rest of the process.</summary>
public interface IMachineThreads : IIoThreads
{
    /// <summary>Called by a vCPU thread before it enters the guest for the first time.</summary>
    void VcpuReady();
}

/// <summary>Opens what the spec names with this process's own privileges: <c>vmmctl run</c>.</summary>
public sealed class PathResources : IMachineResources
{
    /// <summary>Takes remarks for the user; null when nobody reads them.</summary>
    public Action<string>? Note { get; init; }

    /// <summary>Keeps the variables of firmware that the spec names no file for; null: they are gone with the machine.</summary>
    public MemoryVariables? Variables { get; init; }

    /// <inheritdoc/>
    public Action<string>? FirmwareSaid => Note is { } note ? line => note("firmware: " + line) : null;

    /// <inheritdoc/>
    public KvmSystem OpenKvm() => KvmSystem.Open();

    /// <inheritdoc/>
    public BootFile OpenKernel(BootSpec boot) => BootFile.Open(boot.Kernel);

    /// <inheritdoc/>
    public BootFile OpenInitrd(BootSpec boot) => BootFile.Open(boot.Initrd!);

    /// <inheritdoc/>
    public BootFile OpenFirmware(BootSpec boot) => BootFile.Open(FirmwareFiles.Find().Code);

    /// <inheritdoc/>
    public FileDescriptorHandle? OpenVariables(BootSpec boot)
    {
        if (boot.Variables is not { } path)
        {
            return Variables?.Open(FirmwareFiles.Find().Variables);
        }

        FirmwareFiles.CreateVariables(path, FirmwareFiles.Find().Variables);
        return RawFileBackend.Open(path, new RawFileOptions { Cache = DiskCacheMode.Buffered }).TakeDescriptor();
    }

    /// <inheritdoc/>
    public BootFile OpenVariableTemplate(BootSpec boot) => BootFile.Open(FirmwareFiles.Find().Variables);

    /// <inheritdoc/>
    public FileDescriptorHandle OpenUserfault() => PagingFiles.OpenUserfault();

    /// <inheritdoc/>
    public FileDescriptorHandle OpenSwap(PagingSpec paging)
    {
        string folder = paging.Swap ?? PagingFiles.UsualFolder;
        return PagingFiles.OpenSwap(folder, folder, Note);
    }

    /// <inheritdoc/>
    public IDiskBackend OpenDisk(int index, DiskSpec disk) => DiskFiles.Open(disk, Note);

    /// <inheritdoc/>
    public INetBackend OpenNet(int index, NetSpec net)
    {
        if (net.User is not null)
        {
            return UserNets.Start(index, net, Note);
        }

        if (net.Network is { } network)
        {
            throw new HostNetException(
                $"net{index}: network {network} is vmmd's: make the VM with 'vmmctl vm create', or give it --net user here");
        }

        if (net.Macvtap is { } card)
        {
            throw new HostNetException(
                $"net{index}: macvtap on {card} is vmmd's, since it stays when a process ends: make the VM with 'vmmctl vm create', or "
                    + "give it --net user here");
        }

        if (net.Bridge is null)
        {
            return OpenTap(net, kernel => TapBackend.Open(net.Tap, net.Queues, kernel));
        }

        string owner = string.Create(CultureInfo.InvariantCulture, $"vmm-run {Environment.ProcessId}");
        return OpenTap(net, kernel => TapBackend.Of(BridgeTap.Open(net, owner), kernel));
    }

    /// <inheritdoc/>
    public VhostUserLink OpenShare(int index, ShareSpec share) => SharedFolders.Start(index, share, Note);

    /// <inheritdoc/>
    public VhostUserLink OpenBackEnd(int index, string id, DeviceSpec device, VhostUserNeeds needs) =>
        BackEnds.Connect(id, device, needs, Note);

    private static TapBackend OpenTap(NetSpec net, Func<bool, TapBackend> open)
    {
        if (!VhostChoice.Wanted(net))
        {
            return open(false);
        }

        try
        {
            return open(true);
        }
        catch (KernelException cause) when (net.Vhost == VhostUse.Auto)
        {
            _ = cause; // not to be had after all
            return open(false);
        }
        catch (KernelException cause)
        {
            throw VhostChoice.Missing(net, cause);
        }
    }

    /// <inheritdoc/>
    public FileDescriptorHandle OpenDeviceFile(int index, DeviceFile file) =>
        RawFileBackend.Open(file.Path, new RawFileOptions { ReadOnly = !file.Writable, Cache = DiskCacheMode.Buffered }).TakeDescriptor();
}

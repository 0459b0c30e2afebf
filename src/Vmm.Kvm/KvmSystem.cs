using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Interop;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>The KVM device: what it can do, and the maker of VMs.</summary>
public sealed class KvmSystem : IDisposable
{
    /// <summary>The device file of a stock host.</summary>
    public const string DefaultPath = KvmHandle.DefaultPath;

    private const int ApiVersion = 12;

    private readonly KvmHandle _handle;

    private KvmSystem(KvmHandle handle, string path)
    {
        _handle = handle;
        Path = path;
        VcpuMmapSize = KernelException.ThrowIfError(handle.Call(KvmRequest.KVM_GET_VCPU_MMAP_SIZE), "KVM_GET_VCPU_MMAP_SIZE");
    }

    /// <summary>The file this was opened from.</summary>
    public string Path { get; }

    /// <summary>Bytes to map for one vCPU's run page (and rings).</summary>
    public int VcpuMmapSize { get; }

    /// <summary>Opens KVM and checks that it is one this VMM can use.</summary>
    /// <exception cref="KvmUnavailableException">Missing, forbidden, not KVM, or incompatible; the message says which.</exception>
    public static KvmSystem Open(string path = DefaultPath) => FromDescriptor(KvmHandle.Open(path), path);

    /// <summary>Takes over an open KVM device and checks it; <paramref name="path"/> is what errors call it.</summary>
    /// <exception cref="KvmUnavailableException">Not KVM, or incompatible.</exception>
    public static KvmSystem FromDescriptor(KvmHandle handle, string path = DefaultPath)
    {
        try
        {
            Check(handle, path);
            return new KvmSystem(handle, path);
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    /// <summary>0 when the capability is absent; else 1 or a number whose meaning the capability defines.</summary>
    public int CheckExtension(KvmCapability capability) => Math.Max(0, _handle.Call(KvmRequest.KVM_CHECK_EXTENSION, (nint)capability));

    /// <summary>Every CPUID leaf that KVM can show to a guest on this host.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public KvmCpuidEntry[] GetSupportedCpuid()
    {
        for (int room = 128; ; room *= 2)
        {
            byte[] buffer = CpuidBuffer.Create(room);
            int answer = _handle.Call(KvmRequest.KVM_GET_SUPPORTED_CPUID, buffer);
            if (answer == -Errno.E2BIG && room < 65536)
            {
                continue;
            }

            KernelException.ThrowIfError(answer, "KVM_GET_SUPPORTED_CPUID");
            return CpuidBuffer.Entries(buffer);
        }
    }

    /// <summary>Indices of the MSRs whose values make up a vCPU's state (KVM_GET_MSR_INDEX_LIST).</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public uint[] GetMsrIndexList() => IndexList(KvmRequest.KVM_GET_MSR_INDEX_LIST);

    /// <summary>
    /// The feature MSRs: what a vCPU of this host has in them when nothing else is set. Empty where KVM does not tell
    /// (KVM_CAP_GET_MSR_FEATURES).
    /// </summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public KvmMsrEntry[] GetFeatureMsrs()
    {
        if (CheckExtension(KvmCapability.GetMsrFeatures) == 0)
        {
            return [];
        }

        uint[] indices = IndexList(KvmRequest.KVM_GET_MSR_FEATURE_INDEX_LIST);
        List<KvmMsrEntry> values = new(indices.Length);
        byte[] one = new byte[Unsafe.SizeOf<KvmMsrsHeader>() + Unsafe.SizeOf<KvmMsrEntry>()];
        foreach (uint index in indices)
        {
            // One at a time: the kernel stops at the first that it does not have after all.
            MemoryMarshal.Write(one, new KvmMsrsHeader { Nmsrs = 1 });
            MemoryMarshal.Write(one.AsSpan(Unsafe.SizeOf<KvmMsrsHeader>()), new KvmMsrEntry { Index = index });
            if (_handle.Call(KvmRequest.KVM_GET_MSRS, one) == 1)
            {
                values.Add(MemoryMarshal.Read<KvmMsrEntry>(one.AsSpan(Unsafe.SizeOf<KvmMsrsHeader>())));
            }
        }

        return [.. values];
    }

    private uint[] IndexList(KvmRequest request)
    {
        byte[] probe = new byte[4];
        int answer = _handle.Call(request, probe);
        if (answer < 0 && answer != -Errno.E2BIG)
        {
            throw new KernelException(request.ToString(), -answer);
        }

        uint count = MemoryMarshal.Read<uint>(probe);
        byte[] buffer = new byte[4 + (count * 4)];
        MemoryMarshal.Write(buffer, count);
        request.Check(_handle.Call(request, buffer));
        return MemoryMarshal.Cast<byte, uint>(buffer.AsSpan(4)).ToArray();
    }

    /// <summary>A new VM with no memory, no interrupt controller and no vCPU.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public KvmVm CreateVm() => new(this, _handle.Create(KvmRequest.KVM_CREATE_VM));

    /// <inheritdoc/>
    public void Dispose() => _handle.Dispose();

    private static void Check(KvmHandle handle, string path)
    {
        int version = handle.Call(KvmRequest.KVM_GET_API_VERSION);
        if (version < 0)
        {
            string why = version == -Errno.ENOTTY
                ? "it knows no KVM requests"
                : new KernelException("KVM_GET_API_VERSION", -version).Message;
            throw new KvmUnavailableException(KvmUnavailableReason.NotKvm, $"{path} is not a KVM device: {why}.");
        }

        if (version != ApiVersion)
        {
            throw new KvmUnavailableException(
                KvmUnavailableReason.Incompatible, $"{path} speaks KVM API version {version}; this program needs {ApiVersion}.");
        }

        ReadOnlySpan<KvmCapability> needed =
        [
            KvmCapability.UserMemory, KvmCapability.IrqChip, KvmCapability.IrqFd, KvmCapability.IoEventFd, KvmCapability.IrqRouting,
            KvmCapability.ImmediateExit, KvmCapability.ExtCpuid, KvmCapability.MpState, KvmCapability.VcpuEvents,
        ];
        foreach (KvmCapability capability in needed)
        {
            if (handle.Call(KvmRequest.KVM_CHECK_EXTENSION, (nint)capability) <= 0)
            {
                throw new KvmUnavailableException(
                    KvmUnavailableReason.Incompatible, $"{path} lacks the capability {capability}, which this program needs.");
            }
        }
    }
}

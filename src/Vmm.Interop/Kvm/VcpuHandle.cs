using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Vmm.Interop.Kvm;

/// <summary>One vCPU of the shim: its descriptor, its mapped run page, and who is running it. A kick in flight keeps it alive.</summary>
public sealed class VcpuHandle : SafeHandleMinusOneIsInvalid
{
    /// <summary>An invalid handle, for the marshaller.</summary>
    public VcpuHandle() : base(ownsHandle: true) { }

    private VcpuHandle(nint vcpu) : base(ownsHandle: true) => SetHandle(vcpu);

    /// <summary>KVM_CREATE_VCPU and the mapping of its run page.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public static VcpuHandle Create(KvmHandle vm, uint id, int mapLength)
    {
        nint vcpu = Native.VcpuCreate(vm, id, (ulong)mapLength, out int errno);
        return vcpu == -1 ? throw new KernelException($"KVM_CREATE_VCPU {id}", errno) : new VcpuHandle(vcpu);
    }

    /// <summary>One KVM_RUN: 0 (an exit), -EINTR (kicked, or another signal), or -errno.</summary>
    public int Run() => Native.VcpuRun(this);

    /// <summary>From any thread: ends the run in progress, or else the next one, with -EINTR.</summary>
    public int Kick() => Native.VcpuKick(this);

    /// <summary>A request with a number as its argument.</summary>
    public unsafe int Call(KvmRequest request, nint argument = 0) => Native.VcpuIoctl(this, (ulong)request, (void*)argument);

    /// <summary>A request with a struct the kernel reads, writes or both.</summary>
    public unsafe int Call<T>(KvmRequest request, ref T argument) where T : unmanaged
    {
        fixed (T* at = &argument)
        {
            return Native.VcpuIoctl(this, (ulong)request, at);
        }
    }

    /// <summary>A request with a buffer of variable length: a header, then an array.</summary>
    public unsafe int Call(KvmRequest request, Span<byte> buffer)
    {
        fixed (byte* at = &MemoryMarshal.GetReference(buffer))
        {
            return Native.VcpuIoctl(this, (ulong)request, at);
        }
    }

    /// <summary>KVM_GET_DEVICE_ATTR or KVM_SET_DEVICE_ATTR of an attribute of eight bytes.</summary>
    public unsafe int Attribute(KvmRequest request, uint group, ulong attribute, ref ulong value)
    {
        fixed (ulong* at = &value)
        {
            KvmDeviceAttr named = new() { Group = group, Attr = attribute, Addr = (ulong)at };
            return Call(request, ref named);
        }
    }

    /// <summary>The run page; valid until this handle is disposed.</summary>
    public RunPage MapRunPage(int mapLength) => new(Native.VcpuRunPage(this), mapLength);

    /// <summary>Maps the dirty ring that the VM's vCPUs have.</summary>
    /// <param name="length">Bytes, as the VM was told.</param>
    /// <exception cref="KernelException">They have none.</exception>
    public DirtyRingMapping MapDirtyRing(int length) => new(this, length);

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => Native.VcpuDestroy(handle) == 0;
}

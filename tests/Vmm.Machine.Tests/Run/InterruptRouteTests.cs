using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Devices.Bus;
using Vmm.Interop.Kvm;
using Vmm.Machine.Run;
using Vmm.Testing;

namespace Vmm.Machine.Tests.Run;

/// <summary>Routes over KVM: who writes to the eventfd reaches the local APIC, unless the route is masked.</summary>
[Trait("Tier", "kvm")]
public sealed class InterruptRouteTests : IDisposable
{
    private const int SpuriousVector = 0xF0, RequestRegister = 0x200; // of the local APIC's page (Intel SDM vol. 3, table 11-1)
    private const byte First = 0x51, Second = 0x62;

    private readonly EmptyVm _vm = EmptyVm.Create();
    private readonly IInterruptRoute _route;

    public InterruptRouteTests()
    {
        _vm.Complete();
        KvmLapicState apic = _vm.BootVcpu.GetLapic();
        BinaryPrimitives.WriteUInt32LittleEndian(Bytes(ref apic)[SpuriousVector..], 0x1FF); // software enable
        _vm.BootVcpu.SetLapic(apic);
        _route = (IInterruptRoute)_vm.Interrupts.Route(this, 0, 0xFEE0_0000, First);
    }

    public void Dispose()
    {
        _vm.Interrupts.Release(this);
        _vm.Dispose();
    }

    [KvmFact]
    public void A_write_to_the_trigger_is_the_interrupt_and_a_new_target_counts_for_the_next()
    {
        Assert.False(Requested(First));
        _route.Trigger.Signal();
        Await(First);
        _route.Retarget(0xFEE0_0000, Second);
        Assert.False(Requested(Second));
        _route.Trigger.Signal();
        Await(Second);
        Assert.Same(_route, _vm.Interrupts.Route(this, 0, 0xFEE0_0000, First));
    }

    [KvmFact]
    public void While_it_is_masked_a_write_stays_in_the_trigger_and_unmasking_tells()
    {
        _route.Mask();
        _route.Trigger.Signal();
        Thread.Sleep(50); // an interrupt that came would be there by then
        Assert.False(Requested(First));
        Assert.True(_route.Unmask());
        Assert.False(Requested(First));
        _route.Trigger.Signal();
        Await(First);
        _route.Mask();
        Assert.False(_route.Unmask());
    }

    [KvmFact]
    public void A_masked_route_can_be_given_back()
    {
        _route.Mask();
        _vm.Interrupts.Release(this);
        Assert.NotSame(_route, _vm.Interrupts.Route(this, 0, 0xFEE0_0000, First));
    }

    private void Await(byte vector) =>
        Assert.True(SpinWait.SpinUntil(() => Requested(vector), TimeSpan.FromSeconds(10)), $"no interrupt {vector:x}");

    private bool Requested(byte vector)
    {
        KvmLapicState apic = _vm.BootVcpu.GetLapic();
        return (Bytes(ref apic)[RequestRegister + (vector / 32 * 16) + (vector % 32 / 8)] >> (vector % 8) & 1) != 0;
    }

    private static Span<byte> Bytes(ref KvmLapicState apic) =>
        MemoryMarshal.CreateSpan(ref Unsafe.As<KvmLapicState, byte>(ref apic), Unsafe.SizeOf<KvmLapicState>());
}

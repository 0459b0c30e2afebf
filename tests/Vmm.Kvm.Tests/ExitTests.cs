using Vmm.Testing;

namespace Vmm.Kvm.Tests;

[Trait("Tier", "kvm")]
public sealed class ExitTests : IDisposable
{
    private readonly KvmSystem _system = KvmSystem.Open();

    public void Dispose() => _system.Dispose();

    [KvmFact]
    public void Port_write_shows_port_size_and_data()
    {
        using TinyVm tiny = new(_system);
        tiny.StartRealMode(0xb8, 0x34, 0x12, 0xba, 0xf8, 0x03, 0xef, 0xf4); // mov ax,0x1234; mov dx,0x3f8; out dx,ax; hlt
        tiny.RunToPort(0x3f8);
        Assert.True(tiny.Vcpu.IoIsWrite);
        Assert.Equal(2, tiny.Vcpu.IoSize);
        Assert.Equal(1, tiny.Vcpu.IoCount);
        Assert.Equal([0x34, 0x12], tiny.Vcpu.IoData.ToArray());
        Assert.Equal(KvmExit.Hlt, tiny.Vcpu.Run());
    }

    [KvmFact]
    public void Port_read_takes_what_the_span_was_given()
    {
        using TinyVm tiny = new(_system);
        tiny.StartUser(0xe4, 0x60, 0xe6, 0x61); // in al,0x60; out 0x61,al
        tiny.RunToPort(0x60);
        Assert.False(tiny.Vcpu.IoIsWrite);
        tiny.Vcpu.IoData[0] = 0xa5;
        tiny.RunToPort(0x61);
        Assert.Equal(0xa5, tiny.Vcpu.IoData[0]);
    }

    [KvmFact]
    public void Mmio_from_user_code_reads_and_writes_through_the_span()
    {
        using TinyVm tiny = new(_system);
        // mov eax,[0x40000010]; mov [0x40000018],eax (absolute 32-bit addresses)
        tiny.StartUser(0x8b, 0x04, 0x25, 0x10, 0, 0, 0x40, 0x89, 0x04, 0x25, 0x18, 0, 0, 0x40);
        Assert.Equal(KvmExit.Mmio, tiny.Vcpu.Run());
        Assert.False(tiny.Vcpu.MmioIsWrite);
        Assert.Equal(TinyVm.MmioWindow + 0x10, tiny.Vcpu.MmioAddress);
        Assert.Equal(4, tiny.Vcpu.MmioData.Length);
        BitConverter.TryWriteBytes(tiny.Vcpu.MmioData, 0xdeadbeef);
        Assert.Equal(KvmExit.Mmio, tiny.Vcpu.Run());
        Assert.True(tiny.Vcpu.MmioIsWrite);
        Assert.Equal(TinyVm.MmioWindow + 0x18, tiny.Vcpu.MmioAddress);
        Assert.Equal(0xdeadbeef, BitConverter.ToUInt32(tiny.Vcpu.MmioData));
    }

    [KvmFact]
    public void Exits_allocate_nothing()
    {
        using TinyVm tiny = new(_system);
        tiny.StartUser(0xe6, 0x80, 0xeb, 0xfc); // l: out 0x80,al; jmp l
        int sum = 0;
        for (int i = 0; i < 10; i++)
        {
            tiny.RunToPort(0x80);
        }

        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 1000; i++)
        {
            if (tiny.Vcpu.Run() == KvmExit.Io)
            {
                sum += tiny.Vcpu.IoPort + tiny.Vcpu.IoData.Length;
            }
        }

        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
        Assert.Equal(1000 * 0x81, sum);
    }

    [KvmFact]
    public void Kind_agrees_with_the_processor_flags()
    {
        bool flags = File.ReadAllText("/proc/cpuinfo")
            .Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries)
            .Any(f => f is "vmx" or "svm");
        KvmKind kind = KvmKindProbe.Detect(_system);
        if (flags)
        {
            Assert.Equal(KvmKind.Hardware, kind);
        }

        double cost = KvmKindProbe.TimeGuestLoop(_system);
        Assert.True(cost > 0);
        Assert.Equal(kind == KvmKind.Emulating, cost >= 50);
    }
}

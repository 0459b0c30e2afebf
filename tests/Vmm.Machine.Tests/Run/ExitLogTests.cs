using Vmm.Kvm;
using Vmm.Machine.Run;

namespace Vmm.Machine.Tests.Run;

/// <summary>The last exits of a vCPU.</summary>
public sealed class ExitLogTests
{
    [Fact]
    public void Accesses_are_told_with_direction_address_and_as_many_digits_as_bytes()
    {
        ExitLog log = new();
        Assert.Equal("none", log.Describe());
        log.Add(KvmExit.Io, isWrite: true, 0x3f8, [0x41]);
        log.Add(KvmExit.Io, isWrite: false, 0xcfc, [0x34, 0x12]);
        log.Add(KvmExit.Mmio, isWrite: true, 0xfeb0_0000, [1, 0, 0, 0]);
        log.Add(KvmExit.Mmio, isWrite: false, 0xfeb0_0008, [8, 7, 6, 5, 4, 3, 2, 1]);
        log.Add(KvmExit.Io, isWrite: true, 0x3f8, "0123456789"u8);
        Assert.Equal(
            "out 0x3f8 0x41, in 0xcfc 0x1234, write 0xfeb00000 0x00000001, read 0xfeb00008 0x0102030405060708, out 0x3f8 "
                + "0x3736353433323130.. (10 bytes)",
            log.Describe());
        Assert.Equal("read 0xfeb00008 0x0102030405060708, out 0x3f8 0x3736353433323130.. (10 bytes)", log.Describe(most: 2));
    }

    [Fact]
    public void The_last_ones_are_kept_oldest_first_however_many_there_were()
    {
        for (int count = 0; count < 5 * ExitLog.Kept; count++)
        {
            ExitLog log = new();
            for (int i = 0; i < count; i++)
            {
                log.Add(KvmExit.Io, isWrite: true, (ulong)i, [0]);
            }

            string expected = string.Join(
                ", ", Enumerable.Range(Math.Max(0, count - ExitLog.Kept), Math.Min(count, ExitLog.Kept)).Select(i => $"out 0x{i:x} 0x00"));
            Assert.Equal(count == 0 ? "none" : expected, log.Describe());
        }
    }
}

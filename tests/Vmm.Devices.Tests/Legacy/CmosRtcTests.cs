using Vmm.Devices.Legacy;

namespace Vmm.Devices.Tests.Legacy;

/// <summary>The clock as a driver reads it: an index at port 0, the register at port 1.</summary>
public sealed class CmosRtcTests
{
    private readonly SettableClock _clock = new() { Now = new DateTimeOffset(2026, 11, 29, 21, 47, 5, TimeSpan.Zero) }; // a Sunday
    private readonly CmosRtc _rtc;

    public CmosRtcTests() => _rtc = new CmosRtc(_clock);

    [Fact]
    public void Time_reads_as_bcd_in_24_hours_after_reset()
    {
        Assert.Equal(0x02, Read(0x0B));
        Assert.Equal((0x05, 0x47, 0x21), (Read(0), Read(2), Read(4)));
        Assert.Equal((0x01, 0x29, 0x11, 0x26, 0x20), (Read(6), Read(7), Read(8), Read(9), Read(0x32)));
    }

    [Fact]
    public void Register_b_switches_to_binary()
    {
        Write(0x0B, 0x06);
        Assert.Equal((5, 47, 21, 29, 11, 26, 20), (Read(0), Read(2), Read(4), Read(7), Read(8), Read(9), Read(0x32)));
    }

    [Theory]
    [InlineData(0, 0x12)]
    [InlineData(1, 0x01)]
    [InlineData(11, 0x11)]
    [InlineData(12, 0x92)]
    [InlineData(13, 0x81)]
    [InlineData(23, 0x91)]
    public void Twelve_hour_mode_marks_the_afternoon_in_bit_7(int hour, byte expected)
    {
        _clock.Now = new DateTimeOffset(2026, 1, 1, hour, 0, 0, TimeSpan.Zero);
        Write(0x0B, 0x00);
        Assert.Equal(expected, Read(4));
    }

    [Fact]
    public void The_clock_follows_the_host_and_is_never_seen_in_update()
    {
        Assert.Equal(0, Read(0x0A) & 0x80);
        _clock.Now += TimeSpan.FromSeconds(56);
        Assert.Equal((0x01, 0x48), (Read(0), Read(2)));
        Assert.Equal(0x80, Read(0x0D)); // the battery is good
    }

    [Fact]
    public void Cmos_ram_keeps_bytes_and_time_and_century_cannot_be_overwritten()
    {
        Write(0x40, 0xA5);
        Write(0x7F, 0x5A);
        Write(0x00, 0x33);
        Write(0x32, 0x19);
        Write(0x0D, 0x00);
        Assert.Equal((0xA5, 0x5A, 0x05, 0x20, 0x80), (Read(0x40), Read(0x7F), Read(0), Read(0x32), Read(0x0D)));
    }

    [Fact]
    public void The_nmi_mask_in_bit_7_of_the_index_is_no_part_of_it() => Assert.Equal(Read(0x0D), Read(0x8D));

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Random_accesses_never_throw() => DeviceFuzz.Run(_rtc, ports: 2, seed: 11);

    private byte Read(byte register)
    {
        _rtc.Write(0, [register]);
        Span<byte> data = stackalloc byte[1];
        _rtc.Read(1, data);
        return data[0];
    }

    private void Write(byte register, byte value)
    {
        _rtc.Write(0, [register]);
        _rtc.Write(1, [value]);
    }

    private sealed class SettableClock : TimeProvider
    {
        public DateTimeOffset Now { get; set; }

        public override DateTimeOffset GetUtcNow() => Now;
    }
}

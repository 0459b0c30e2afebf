using System.Text;
using Vmm.Devices.Firmware;

namespace Vmm.Devices.Tests.Firmware;

/// <summary>The debug port: what firmware says becomes lines, however much and whatever it is.</summary>
public sealed class FirmwareOutputTests
{
    private readonly List<string> _lines = [];
    private readonly FirmwareOutput _port;
    private long _now;

    public FirmwareOutputTests() => _port = new FirmwareOutput(_lines.Add, () => _now);

    [Fact]
    public void A_read_says_that_somebody_takes_what_is_written()
    {
        byte[] data = new byte[4];
        _port.Read(0, data);
        Assert.Equal([0xE9, 0, 0, 0], data);
    }

    [Fact]
    public void Bytes_become_lines_without_what_would_steer_a_terminal()
    {
        Say("SecCoreStartup\r\n\r\n\x1b[2Jred\t\xff\r\nno end");
        Assert.Equal(["SecCoreStartup", "?[2Jred ?"], _lines);
        Say(" yet\n");
        Assert.Equal("no end yet", _lines[^1]);
    }

    [Fact]
    public void A_line_without_end_is_cut()
    {
        Say(new string('x', 1 << 20) + "\n");
        Assert.Equal(FirmwareOutput.LongestLine + "...".Length, Assert.Single(_lines).Length);
    }

    [Fact]
    public void More_lines_than_a_log_can_bear_are_left_out_and_counted()
    {
        for (int i = 0; i < 1000; i++)
        {
            Say($"line {i}\n");
        }

        Assert.Equal(FirmwareOutput.Burst, _lines.Count);
        _now += FirmwareOutput.MillisecondsPerLine;
        Say("later\n");
        Say("too soon\n");
        Assert.Equal(FirmwareOutput.Burst + 1, _lines.Count);
        Assert.Equal($"({1000 - FirmwareOutput.Burst} lines left out) later", _lines[^1]);
    }

    private void Say(string text)
    {
        foreach (byte one in Encoding.Latin1.GetBytes(text))
        {
            _port.Write(0, [one]);
        }
    }
}

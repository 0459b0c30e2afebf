namespace Vmm.Spec.Tests;

public sealed class SpecOptionTests
{
    [Fact]
    public void Everything_that_can_be_said_of_a_network_device_is_read()
    {
        Assert.True(SpecOption.TryParseNet(
            "tap=vmtap0,mac=52:54:00:12:34:56,queues=2,mtu=1400,transport=mmio,vhost=off,vnode=1", out NetSpec net, out _));
        Assert.Equal(
            new NetSpec
            {
                Tap = "vmtap0",
                Mac = "52:54:00:12:34:56",
                Queues = 2,
                Mtu = 1400,
                Transport = VirtioTransport.Mmio,
                Vhost = VhostUse.Off,
                Vnode = 1
            },
            net);
    }

    [Fact]
    public void User_mode_networking_and_its_ports_are_read()
    {
        Assert.True(SpecOption.TryParseNet("user", out NetSpec net, out _));
        Assert.Empty(net.User!.Publish);
        Assert.True(SpecOption.TryParseNet("user,publish=2222:22,mtu=1400,publish=[::1]:80:80/udp", out net, out _));
        Assert.Equal(["2222:22", "[::1]:80:80/udp"], net.User!.Publish);
        Assert.Equal(1400, net.Mtu);
    }

    [Fact]
    public void Everything_that_can_be_said_of_a_disk_is_read()
    {
        Assert.True(SpecOption.TryParseDisk(
            "/a=b,ro,queues=2,queue-size=64,serial=S,cache=buffered,transport=mmio,vnode=1", out DiskSpec disk, out _));
        Assert.Equal(new SourceSpec { Path = "/a=b", Cache = DiskCache.Buffered }, disk.Source);
        Assert.Equal(new FrontSpec { Queues = 2, QueueSize = 64, Serial = "S", Transport = VirtioTransport.Mmio }, disk.Front);
        Assert.Equal((true, 1), (disk.ReadOnly, disk.Vnode));
    }

    [Theory]
    [InlineData("/a.qcow2", DiskFormat.Qcow2)]
    [InlineData("/a.QCOW2,ro", DiskFormat.Qcow2)]
    [InlineData("/a.qcow2,format=raw", DiskFormat.Raw)]
    [InlineData("/a.img,format=qcow2", DiskFormat.Qcow2)]
    [InlineData("/a.img", DiskFormat.Raw)]
    [InlineData("/a.qcow2.raw", DiskFormat.Raw)]
    [InlineData("/qcow2", DiskFormat.Raw)]
    public void The_name_of_a_file_gives_its_format_when_nothing_is_said(string text, DiskFormat format)
    {
        Assert.True(SpecOption.TryParseDisk(text, out DiskSpec disk, out _));
        Assert.Equal(format, disk.Format);
        DiskSpec stored = SpecReader.ReadDisk(SpecEdit.Item(disk), "stored");
        Assert.Equal(format, stored.Format); // what is stored says it: a spec is not guessed about
        Assert.Equal(format == DiskFormat.Qcow2, SpecEdit.Item(disk).Contains("format: qcow2", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("/a.vmdk", "/a.vmdk is a VMware disk by its name: convert it: qemu-img convert -O qcow2 /a.vmdk; or say format=raw")]
    [InlineData("/a.VHDX,ro", "a Hyper-V disk")]
    [InlineData("/debian.qcow2.xz", "unpack it: unxz -k /debian.qcow2.xz")]
    [InlineData("/a.raw.zst", "unzstd")]
    public void The_disk_of_another_program_is_refused_with_what_to_do(string text, string problem)
    {
        Assert.False(SpecOption.TryParseDisk(text, out _, out string said));
        Assert.Contains(problem, said, StringComparison.Ordinal);
        Assert.True(SpecOption.TryParseDisk(text + ",format=raw", out DiskSpec disk, out _));
        Assert.Equal(DiskFormat.Raw, disk.Format);
    }

    [Theory]
    [InlineData("vmtap0", "unknown; known: tap, user, bridge, network, macvtap, mode, vlan, "
        + "anti-spoof, mac, queues, mtu, transport, vhost, vnode")]
    [InlineData("mac=1", "network=NAME, tap=NAME, bridge=NAME, macvtap=NAME or user is missing")]
    [InlineData("tap=a,publish=80:80", "publish= belongs to user")]
    [InlineData("user=1", "user=1: user takes no value")]
    [InlineData("tap=a,queue=2", "queue=2: unknown; did you mean queues?")]
    [InlineData("tap=a,queues=x", "queues=x: expected a number")]
    [InlineData("tap=a,queues", "queues: expected a number")]
    [InlineData("tap=a,mac", "mac: expected mac=TEXT")]
    [InlineData("tap=a,transport=usb", "transport=usb: expected pci or mmio")]
    [InlineData("tap=a,vhost=", "vhost=: expected auto, on or off")]
    public void A_mistake_in_a_network_device_is_named(string text, string problem)
    {
        Assert.False(SpecOption.TryParseNet(text, out _, out string said));
        Assert.Contains(problem, said, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("", "the path comes first")]
    [InlineData(",ro", "the path comes first")]
    [InlineData("a,ro=1", "ro=1: ro takes no value")]
    [InlineData("a,path=b", "path=b: unknown")]
    [InlineData("a,format=vmdk", "format=vmdk: expected raw or qcow2")]
    [InlineData("a,", ": unknown")]
    public void A_mistake_in_a_disk_is_named(string text, string problem)
    {
        Assert.False(SpecOption.TryParseDisk(text, out _, out string said));
        Assert.Contains(problem, said, StringComparison.Ordinal);
    }

    [Fact]
    public void The_form_that_the_help_shows_names_every_field_that_an_option_takes()
    {
        Assert.Equal(
            "[,format=raw|qcow2][,cache=direct|buffered][,serial=S][,queues=N][,queue-size=N][,block-size=N]"
                + "[,transport=pci|mmio][,ro][,vnode=N]", SpecOption.Form("disks"));
        Assert.Equal("[,vlan=N][,anti-spoof][,mac=M]"
                + "[,queues=N][,mtu=N][,transport=pci|mmio][,vhost=auto|on|off][,vnode=N]", SpecOption.Form("nets"));
    }
}

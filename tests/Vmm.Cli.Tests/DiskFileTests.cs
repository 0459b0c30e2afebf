using System.Text.Json;
using Vmm.Cpu;

namespace Vmm.Cli.Tests;

/// <summary><c>vmmctl disk</c> on image files of this machine: no daemon is there to be asked.</summary>
[Collection("environment")]
public sealed class DiskFileTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmmctl-disk-").FullName;
    private readonly StringWriter _out = new();
    private readonly StringWriter _error = new();

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_file_is_made_shown_checked_and_changed()
    {
        Assert.Equal(0, Execute("disk", "create", PathOf("base"), "--size", "16MiB", "--cluster-size", "4KiB"));
        Assert.Equal(0, Execute("disk", "create", PathOf("top"), "--backing", "base", "--backing-format", "qcow2"));
        Assert.Equal(0, Execute("disk", "resize", PathOf("top"), "--size", "24MiB"));
        JsonElement info = Json("disk", "info", PathOf("top"));
        Assert.Equal((24 << 20, "base", "qcow2"), (
            info.GetProperty("virtualSize").GetInt32(),
            info.GetProperty("backingFile").GetString(),
            info.GetProperty("backingFormat").GetString()));
        Assert.Equal(2, Json("disk", "chain", PathOf("top")).GetArrayLength());
        Assert.Equal("unallocated", Json("disk", "map", PathOf("base"))[0].GetProperty("kind").GetString());
        Assert.Equal(0, Execute("disk", "convert", PathOf("top"), PathOf("raw"), "--to", "raw"));
        Assert.Equal(24 << 20, new FileInfo(PathOf("raw")).Length);
        Assert.Equal(0, Execute("disk", "create", PathOf("over"), "--backing", "top", "--backing-format", "qcow2"));
        Assert.Equal(0, Execute("disk", "stream", PathOf("over"), "--base", PathOf("base")));
        Assert.Equal("base", Json("disk", "info", PathOf("over")).GetProperty("backingFile").GetString());
        Assert.Equal(0, Execute("disk", "stream", PathOf("over")));
        Assert.False(Json("disk", "info", PathOf("over")).TryGetProperty("backingFile", out _));
        Assert.Equal(0, Execute("disk", "create", PathOf("delta"), "--backing", "over", "--backing-format", "qcow2"));
        Assert.Equal(0, Execute("disk", "commit", PathOf("delta"), "--delete"));
        Assert.False(File.Exists(PathOf("delta")));
        Assert.Equal(0, Execute("disk", "rebase", PathOf("top"), "--no-backing"));
        Assert.False(Json("disk", "info", PathOf("top")).TryGetProperty("backingFile", out _));
        Assert.Equal(0, Json("disk", "check", PathOf("top"), "--repair", "all").GetProperty("corruptions").GetInt32());
    }

    [Fact]
    public void Points_are_made_of_files_listed_verified_restored_and_pruned()
    {
        Assert.Equal(0, Execute("disk", "create", PathOf("a.qcow2"), "--size", "16MiB"));
        string points = PathOf("points");
        for (int i = 1; i <= 3; i++)
        {
            Assert.Equal(0, Execute("backup", "create", PathOf("a.qcow2"), "--to", points));
        }

        Assert.Equal(0, Execute("backup", "list", points));
        Assert.Matches("1 +[0-9-]{10} [0-9:]{8}Z +full +disk0 16 MiB", _out.ToString());
        Assert.Contains("it is the first backup", _out.ToString(), StringComparison.Ordinal);
        Assert.Equal(["full", "delta", "delta"], Json("backup", "list", points).EnumerateArray()
            .Select(point => point.GetProperty("kind").GetString()));
        Assert.Equal(0, Execute("backup", "verify", points));
        Assert.Equal(0, Execute("backup", "restore", points + "@2", "--to", PathOf("back"), "--format", "raw"));
        Assert.Equal(16 << 20, new FileInfo(Path.Combine(PathOf("back"), "disk0.img")).Length);
        Assert.Equal(1, Execute("backup", "restore", points + "@9", "--to", PathOf("back")));
        Assert.Contains("has no point 9", _error.ToString(), StringComparison.Ordinal);
        Assert.Equal(0, Execute("backup", "prune", points, "--keep", "1"));
        Assert.Equal(3, Json("backup", "list", points)[0].GetProperty("number").GetInt32());
        string delta = Directory.GetFiles(Path.Combine(points, "000003"), "*.delta").Single();
        Poke(delta, (int)new FileInfo(delta).Length - 128, 7);
        Assert.Equal(2, Execute("backup", "verify", points));
        Assert.Contains("it has no seal at its end", _error.ToString(), StringComparison.Ordinal);
        Assert.Equal(2, Execute("backup", "create", PathOf("a.qcow2"), "--to", points, "--quiesce"));
        Assert.Equal(2, Execute("backup", "create", "a", "b", "--to", points));
        Assert.Equal(2, Execute("backup", "prune", points, "--keep", "0"));
    }

    [Fact]
    public void Check_exits_as_qemu_img_does()
    {
        string path = PathOf("image");
        Assert.Equal(0, Execute("disk", "create", path, "--size", "1MiB"));
        byte[] sound = File.ReadAllBytes(path);
        Assert.Equal(0, Execute("disk", "check", path));
        File.WriteAllBytes(path, [.. sound, .. new byte[65536]]);
        Poke(path, (3 * 65536) + 9, 1); // the refcount of the cluster behind
        Assert.Equal(3, Execute("disk", "check", path));
        Poke(path, (3 * 65536) + 3, 0); // that of the L1 table
        Assert.Equal(2, Execute("disk", "check", path));
        Assert.Equal(0, Execute("disk", "check", path, "--repair", "all"));
        Poke(path, 0, 0);
        Assert.Equal(1, Execute("disk", "check", path));
        Assert.Contains("is not a qcow2 image", _error.ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("disk create NAME --size 1MiB --format qcow2", 2, "a file of this machine is written ./NAME")]
    [InlineData("disk create NAME", 2, "--size is missing")]
    [InlineData("disk create /F", 2, "--size is missing; only an image with a backing file")]
    [InlineData("disk create /F --size 1MiB --backing a", 2, "a format is never guessed")]
    [InlineData("disk create /F --size 1MiB --cluster-size 3000", 2, "expected a power of two, not 3000")]
    [InlineData("disk create /F --size nothing", 2, "--size nothing: expected a size")]
    [InlineData("disk create /F --size 1001", 1, "whole sectors")]
    [InlineData("disk create /F --size 1MiB --format raw --backing a --backing-format raw", 2, "a raw file has no backing file")]
    [InlineData("disk info /F", 1, "does not exist")]
    [InlineData("disk map /F --format vmdk", 2, "--format vmdk: expected qcow2 or raw")]
    [InlineData("disk check /F --repair some", 2, "--repair some: expected leaks or all")]
    [InlineData("disk convert /F /G --compress --to raw", 2, "a raw file is not compressed")]
    [InlineData("disk rebase /F --backing a", 2, "expected --backing FILE with --backing-format")]
    [InlineData("disk rebase /F", 2, "or --no-backing")]
    [InlineData("disk resize /F", 2, "disk resize: --size is missing")]
    public void What_cannot_be_is_refused_in_one_line(string args, int code, string why)
    {
        string[] words = [.. args.Split(' ').Select(w => w is "/F" or "/G" ? PathOf(w[1..]) : w)];
        Assert.Equal(code, Execute(words));
        Assert.Contains(why, _error.ToString(), StringComparison.Ordinal);
        Assert.Empty(Directory.GetFiles(_folder));
    }

    private string PathOf(string name) => Path.Combine(_folder, name);

    private int Execute(params string[] args) => new Application(() => KvmSurvey.None("nobody asks"), _out, _error).Execute(args);

    private JsonElement Json(params string[] args)
    {
        _out.GetStringBuilder().Clear();
        Assert.Equal(0, Execute([.. args, "-o", "json"]));
        return JsonDocument.Parse(_out.ToString()).RootElement;
    }

    private static void Poke(string path, int at, byte value)
    {
        using FileStream file = File.OpenWrite(path);
        file.Position = at;
        file.WriteByte(value);
    }
}

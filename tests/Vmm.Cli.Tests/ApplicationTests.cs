using Vmm.Cpu;

namespace Vmm.Cli.Tests;

[Collection("environment")]
public sealed class ApplicationTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmmctl").FullName;
    private readonly StringWriter _out = new();
    private readonly StringWriter _error = new();
    private readonly KvmSurvey _kvm = KvmSurvey.None("there is no KVM here");

    public ApplicationTests()
    {
        File.WriteAllText(PathOf("vmlinuz"), "k");
        File.WriteAllText(PathOf("disk.raw"), "d");
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private string PathOf(string name) => Path.Combine(_folder, name);

    private int Execute(params string[] args) => new Application(() => _kvm, _out, _error).Execute(args);

    [Theory]
    [InlineData("vm strt a", "vm: strt: no such command; did you mean start?", "try: vmmctl vm --help")]
    [InlineData("vms list", "vms: no such command; did you mean vm?", "try: vmmctl --help")]
    [InlineData("vm", "vm: say what to do: list, show, create", "try: vmmctl vm --help")]
    [InlineData("vm start", "vm start: NAME is missing", "try: vmmctl vm start --help")]
    [InlineData("vm start a b", "vm start: b: one word too many", "try: vmmctl vm start --help")]
    [InlineData("vm stop a --gracefull", "vm stop: --gracefull: no such option; did you mean --graceful?", "try: vmmctl vm stop --help")]
    [InlineData("disk resize ./x", "disk resize: --size is missing", "try: vmmctl disk resize --help")]
    [InlineData("vm create -f", "--file: its value is missing", "try: vmmctl vm create --help")]
    [InlineData("vm limit a", "vm limit: DEVICE is missing", "try: vmmctl vm limit --help")]
    [InlineData("vm memory a --vnode x", "--vnode x: expected a number", "try: vmmctl vm memory --help")]
    [InlineData("events --after x", "--after x: expected a number", "try: vmmctl events --help")]
    [InlineData("token create a --role root", "--role root: expected viewer, operator or admin", "try: vmmctl token create --help")]
    [InlineData("vm show a -o xml", "xml", "try: vmmctl vm show --help")]
    public void A_command_that_is_none_says_what_was_meant_and_where_to_read_on(string args, string message, string last)
    {
        Assert.Equal(ExitCodes.Usage, Execute(args.Split(' ')));
        string[] lines = _error.ToString().TrimEnd().Split('\n');
        Assert.StartsWith("vmmctl: ", lines[0], StringComparison.Ordinal);
        Assert.Contains(message, lines[0], StringComparison.Ordinal);
        Assert.Equal(["vmmctl: " + last], lines[1..]);
    }

    [Fact]
    public void Spec_commands_check_files_and_print_the_schema()
    {
        File.WriteAllText(PathOf("good.yaml"), "boot: {kernel: vmlinuz}");
        File.WriteAllText(PathOf("bad.yaml"), "cpuss: 2\nboot: {kernel: vmlinuz}");
        Assert.Equal(0, Execute("spec", "validate", PathOf("good.yaml")));
        Assert.Equal(2, Execute("spec", "validate", PathOf("bad.yaml")));
        Assert.Contains("bad.yaml:1:1: cpuss: unknown field; did you mean cpus?", _error.ToString(), StringComparison.Ordinal);
        Assert.Equal(0, Execute("spec", "schema"));
        Assert.Equal(0, Execute("version"));
        Assert.Equal(0, Execute("run", "--help"));
        Assert.Contains("vmmctl run -f web1.yaml", _out.ToString(), StringComparison.Ordinal);
    }
}

using System.CommandLine;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm …</c>: names, options, help. What they do is in <see cref="VmApplication"/>.</summary>
internal static class VmCommands
{
    internal static Command Create()
    {
        Option<string> host = new("--host") { Description = "The daemon's socket", HelpName = "unix:PATH", DefaultValueFactory = _ => "unix:" + VmmClient.DefaultSocket, Recursive = true };
        Option<string> output = new("--output", "-o") { Description = "table or json", DefaultValueFactory = _ => "table", HelpName = "format", Recursive = true };
        output.AcceptOnlyFromAmong("table", "json");
        Command vm = new("vm", "Virtual machines that a vmmd runs") { host, output };

        Argument<string> name = new("name") { Description = "Name of the VM" };
        Option<string> file = new("--file", "-f") { Description = "VM spec (YAML)", HelpName = "spec.yaml", Required = true };
        Option<bool> start = new("--start") { Description = "Start it, too" };
        Option<bool> force = new("--force") { Description = "Stop it first when it runs" };
        Option<bool> watch = new("--watch") { Description = "Again every second, until Ctrl-C" };

        Add("list", "All VMs", [], (app, _, cancellation) => app.ListAsync(cancellation));
        Add("show", "One VM", [name], (app, parsed, cancellation) => app.ShowAsync(parsed.GetValue(name)!, cancellation));
        Add("create", "Create a VM from a spec; the same spec again changes nothing", [file, start], (app, parsed, cancellation) =>
            app.CreateAsync(parsed.GetValue(file)!, parsed.GetValue(start), cancellation));
        Add("delete", "Forget a VM; its disks stay", [name, force], (app, parsed, cancellation) => app.DeleteAsync(parsed.GetValue(name)!, parsed.GetValue(force), cancellation));
        Add("spec", "Print the spec as it was given", [name], (app, parsed, cancellation) => app.SpecAsync(parsed.GetValue(name)!, cancellation));
        Add("edit", "Change the spec in $EDITOR; the VM must not run", [name], (app, parsed, cancellation) => app.EditAsync(parsed.GetValue(name)!, cancellation));
        Add("stats", "Counters of a running VM", [name, watch], (app, parsed, cancellation) => app.StatsAsync(parsed.GetValue(name)!, parsed.GetValue(watch), cancellation));
        Argument<string> device = new("device") { Description = "disk0, net1, …" };
        Option<string> bandwidth = new("--bandwidth") { Description = "Bytes a second, e.g. 100MiB", HelpName = "size" };
        Option<long?> operations = new("--operations") { Description = "Requests or frames a second", HelpName = "N" };
        Option<bool> none = new("--none") { Description = "No limit" };
        Add("limit", "Limit a disk or network device of a running VM, until its next start", [name, device, bandwidth, operations, none], (app, parsed, cancellation) =>
            app.LimitAsync(parsed.GetValue(name)!, parsed.GetValue(device)!, parsed.GetValue(bandwidth), parsed.GetValue(operations), parsed.GetValue(none), cancellation));
        Add("console", "The serial console on this terminal; Ctrl-A x leaves, the VM goes on", [name], (app, parsed, cancellation) => app.ConsoleAsync(parsed.GetValue(name)!, cancellation));
        Option<int> vnode = new("--vnode") { Description = "Which vnode", HelpName = "K" };
        Option<string> size = new("--size") { Description = "All memory the vnode shall have, e.g. 3GiB", HelpName = "size" };
        Option<string> balloon = new("--balloon") { Description = "Size the balloon shall have", HelpName = "size" };
        Option<int> timeout = new("--timeout") { Description = "Seconds to wait for the guest", DefaultValueFactory = _ => 30, HelpName = "seconds" };
        Add("memory", "Memory of each vnode; with --size or --balloon, change it while the VM runs", [name, vnode, size, balloon, timeout], (app, parsed, cancellation) =>
            app.MemoryAsync(parsed.GetValue(name)!, parsed.GetValue(vnode), parsed.GetValue(size), parsed.GetValue(balloon), parsed.GetValue(timeout), cancellation));
        foreach ((string verb, string help) in new[]
        {
            ("start", "Start a VM"), ("stop", "Pull the plug"), ("pause", "Stop the vCPUs between two instructions"), ("resume", "Let paused vCPUs go on"),
            ("power-button", "Press the power button; the guest decides what it does"),
        })
        {
            Add(verb, help, [name], (app, parsed, cancellation) => app.DoAsync(parsed.GetValue(name)!, verb, cancellation));
        }

        return vm;

        void Add(string verb, string help, Symbol[] symbols, Func<VmApplication, ParseResult, CancellationToken, Task<int>> action)
        {
            Command command = new(verb, help);
            foreach (Symbol symbol in symbols)
            {
                if (symbol is Argument argument)
                {
                    command.Arguments.Add(argument);
                }
                else
                {
                    command.Options.Add((Option)symbol);
                }
            }

            command.SetAction(async (parsed, cancellation) =>
            {
                using VmApplication app = new(parsed.GetValue(host)!, string.Equals(parsed.GetValue(output), "json", StringComparison.Ordinal), parsed.InvocationConfiguration.Output, parsed.InvocationConfiguration.Error);
                return await app.RunAsync(() => action(app, parsed, cancellation)).ConfigureAwait(false);
            });
            vm.Subcommands.Add(command);
        }
    }
}
